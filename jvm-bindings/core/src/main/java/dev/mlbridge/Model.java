package dev.mlbridge;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;

/** What a user holds: a session with its checks. Safe for many threads; made by {@link Models}. */
public final class Model implements AutoCloseable {
  private final Session session;
  private final Signature signature;
  private final String route;
  private final Semaphore turns;
  private final AtomicBoolean closed = new AtomicBoolean();

  /** Makes a model of a session; the route says in one sentence where it came from. */
  public Model(Session session, Signature signature, String route) {
    this.session = session;
    this.signature = signature;
    this.route = route;
    this.turns = new Semaphore(Math.max(1, session.maxConcurrency()));
  }

  /** Returns the names, dtypes, shapes and rules. */
  public Signature signature() {
    return signature;
  }

  /** Returns which implementation answers, and why. */
  public String route() {
    return route;
  }

  /**
   * Asks the model: blocks or columns by name in, categories by the values of their levels; levels come back as values.
   *
   * @throws MlbridgeException InputError, InferenceError, ClosedError
   */
  public Map<String, Tensor> predict(Map<String, Tensor> inputs) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    run(Feeds.of(signature, inputs), Call.all())
        .forEach((name, tensor) -> out.put(name, values(signature.output(name).orElseThrow(), tensor)));
    return out;
  }

  /** As {@link #predict}, on another thread. */
  public CompletableFuture<Map<String, Tensor>> predictAsync(Map<String, Tensor> inputs) {
    return CompletableFuture.supplyAsync(() -> predict(inputs));
  }

  /** Returns every problem of the inputs without running; empty if there is none. */
  public List<String> check(Map<String, Tensor> inputs) {
    try {
      Feeds.of(signature, inputs);
      return List.of();
    } catch (MlbridgeException e) {
      return e.problems();
    }
  }

  /** Runs tensors that satisfy the signature; categories are codes on both sides. */
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    if (closed.get()) {
      throw MlbridgeException.of(MlbridgeException.Kind.CLOSED, "the model is closed");
    }
    for (String name : call.outputs()) {
      if (signature.output(name).isEmpty()) {
        throw MlbridgeException.of(MlbridgeException.Kind.INPUT, "there is no output '" + name + "'");
      }
    }
    Map<String, Tensor> got = ask(feeds, call);
    List<String> names =
        call.outputs().isEmpty() ? signature.outputs().stream().map(TensorSpec::name).toList() : call.outputs();
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : names) {
      out.put(
          name,
          Optional.ofNullable(got.get(name))
              .orElseThrow(
                  () -> MlbridgeException.of(MlbridgeException.Kind.INFERENCE, "the model did not answer '" + name + "'")));
    }
    return out;
  }

  private Map<String, Tensor> ask(Map<String, Tensor> feeds, Call call) {
    try {
      Optional<Duration> left = call.remaining();
      if (left.isEmpty()) {
        turns.acquire();
      } else if (!turns.tryAcquire(left.get().toNanos(), java.util.concurrent.TimeUnit.NANOSECONDS)) {
        throw MlbridgeException.of(MlbridgeException.Kind.TIMEOUT, "the deadline passed before the model was free");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw MlbridgeException.of(MlbridgeException.Kind.CANCELLED, "the call was cancelled").withCause(e);
    }
    try {
      return session.run(feeds, call);
    } catch (MlbridgeException e) {
      throw e;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw MlbridgeException.of(MlbridgeException.Kind.CANCELLED, "the call was cancelled").withCause(e);
    } catch (Exception | StackOverflowError e) {
      throw MlbridgeException.of(MlbridgeException.Kind.INFERENCE, String.valueOf(e.getMessage())).withCause(e);
    } finally {
      turns.release();
    }
  }

  private static Tensor values(TensorSpec spec, Tensor tensor) {
    if (!spec.categorical()) {
      return tensor;
    }
    List<Object> levels = spec.columns().get(0).categories().orElseThrow();
    String[] out = new String[tensor.size()];
    boolean complete = true;
    for (int i = 0; i < out.length; i++) {
      int code = tensor.ints().get(i);
      out[i] = code >= 0 && code < levels.size() ? Column.levelText(levels.get(code)) : null;
      complete &= out[i] != null;
    }
    if (complete && !levels.isEmpty() && levels.get(0) instanceof Long) {
      long[] numbers = new long[out.length];
      for (int i = 0; i < numbers.length; i++) {
        numbers[i] = Long.parseLong(out[i]);
      }
      return Tensor.of(numbers, tensor.shape());
    }
    return Tensor.ofStrings(out, tensor.shape());
  }

  @Override
  public void close() {
    if (!closed.getAndSet(true)) {
      session.close();
    }
  }

  @Override
  public String toString() {
    return signature + " (" + route + ")";
  }
}
