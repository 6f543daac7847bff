package dev.mlbridge;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** What a user holds: a session with its checks. Safe for many threads; made by {@link Models}. */
public final class Model implements AutoCloseable {
  private final Session session;
  private final Signature signature;
  private final String route;
  private final Semaphore turns;
  private final AtomicBoolean closed = new AtomicBoolean();

  /** Makes a model of a session; the route is the runtime's name and why: {@code onnx: the file is ONNX}. */
  public Model(Session session, Signature signature, String route) {
    this.session = session;
    this.signature = signature;
    this.route = route;
    this.turns = new Semaphore(maxConcurrency());
  }

  /** Makes a model of a user's session. */
  public static Model of(Session session) {
    return new Model(session, session.signature(), "jvm: a session of this program");
  }

  /** Returns the names, dtypes, shapes and rules. */
  public Signature signature() {
    return signature;
  }

  /** Returns which implementation answers, and why. */
  public String route() {
    return route;
  }

  /** Returns how many calls may run at once. */
  public int maxConcurrency() {
    return Math.max(1, session.maxConcurrency());
  }

  /**
   * Asks the model: blocks or columns by name in, categories by the values of their levels; levels come back as values.
   *
   * @throws MlbridgeException InputError, InferenceError, ClosedError
   */
  public Map<String, Tensor> predict(Map<String, Tensor> inputs) {
    return predict(inputs, Call.all());
  }

  /** As {@link #predict(Map)}, for the outputs and within the time of the call. */
  public Map<String, Tensor> predict(Map<String, Tensor> inputs, Call call) {
    return values(run(Feeds.of(signature, inputs), call));
  }

  /** As {@link #predict(Map)}, later. */
  public CompletableFuture<Map<String, Tensor>> predictAsync(Map<String, Tensor> inputs) {
    return predictAsync(inputs, Call.all());
  }

  /**
   * As {@link #predict(Map, Call)}, later: on no thread of this program where the model is served elsewhere, else on
   * another. Cancelling the future, or the call, ends the work. Inputs that do not fit fail the future too.
   */
  public CompletableFuture<Map<String, Tensor>> predictAsync(Map<String, Tensor> inputs, Call call) {
    CompletableFuture<Map<String, Tensor>> out;
    try {
      if (session instanceof AsyncSession later) {
        Map<String, Tensor> feeds = Feeds.of(signature, inputs);
        out = prepared(feeds, call).map(CompletableFuture::completedFuture).orElseGet(() -> later.runAsync(feeds, call))
            .thenApply(got -> values(chosen(got, call)));
      } else {
        out = CompletableFuture.supplyAsync(() -> predict(inputs, call));
      }
    } catch (MlbridgeException e) {
      return CompletableFuture.failedFuture(e);
    }
    out.whenComplete(
        (got, failure) -> {
          if (failure instanceof java.util.concurrent.CancellationException) {
            call.cancel();
          }
        });
    return out;
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
    Optional<Map<String, Tensor>> known = prepared(feeds, call);
    return known.isPresent() ? known.get() : chosen(ask(feeds, call), call);
  }

  /** Refuses what cannot run, and answers zero rows without the model where the other sizes are fixed. */
  private Optional<Map<String, Tensor>> prepared(Map<String, Tensor> feeds, Call call) {
    if (closed.get()) {
      throw MlbridgeException.of(MlbridgeException.Kind.CLOSED, "the model is closed");
    }
    for (String name : call.outputs()) {
      if (signature.output(name).isEmpty()) {
        throw MlbridgeException.of(MlbridgeException.Kind.INPUT, "there is no output '" + name + "'");
      }
    }
    if (!signature.batched() || feeds.values().stream().anyMatch(t -> t.dim(0) != 0)) {
      return Optional.empty();
    }
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : wanted(call)) {
      TensorSpec spec = signature.output(name).orElseThrow();
      if (!spec.shape().stream().skip(1).allMatch(d -> d instanceof Dim.Size)) {
        return Optional.empty();
      }
      long[] shape = spec.shape().stream().mapToLong(d -> d instanceof Dim.Size s ? s.value() : 0).toArray();
      boolean text = spec.dtype() == DType.STRING;
      out.put(name, text ? Tensor.ofStrings(new String[0], shape) : Tensor.ofBytes(spec.dtype(), java.nio.ByteBuffer.allocate(0), shape));
    }
    return Optional.of(out);
  }

  private List<String> wanted(Call call) {
    return call.outputs().isEmpty() ? signature.outputs().stream().map(TensorSpec::name).toList() : call.outputs();
  }

  /** Takes the outputs asked for, in order; an answer that breaks the signature is the model's failure. */
  private Map<String, Tensor> chosen(Map<String, Tensor> got, Call call) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : wanted(call)) {
      TensorSpec spec = signature.output(name).orElseThrow();
      Tensor value =
          Optional.ofNullable(got.get(name)).orElseThrow(() -> failed("the model did not answer '" + name + "'"));
      if (value.dtype() != spec.dtype() || value.rank() != spec.shape().size()) {
        throw failed("the model answered '" + name + "' as " + value + ", expected " + spec);
      }
      out.put(name, value);
    }
    return out;
  }

  private static MlbridgeException failed(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.INFERENCE, text);
  }

  private Map<String, Tensor> ask(Map<String, Tensor> feeds, Call call) {
    try {
      Optional<Duration> left = call.remaining();
      if (left.isEmpty()) {
        turns.acquire();
      } else if (!turns.tryAcquire(left.get().toNanos(), TimeUnit.NANOSECONDS)) {
        throw MlbridgeException.of(MlbridgeException.Kind.TIMEOUT, "the deadline passed before the model was free");
      }
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
    try {
      return session.run(feeds, call);
    } catch (MlbridgeException e) {
      throw e;
    } catch (InterruptedException e) {
      throw interrupted(e);
    } catch (Exception | StackOverflowError e) {
      throw failed(String.valueOf(e.getMessage())).withCause(e);
    } finally {
      turns.release();
    }
  }

  private static MlbridgeException interrupted(InterruptedException e) {
    Thread.currentThread().interrupt();
    return MlbridgeException.of(MlbridgeException.Kind.CANCELLED, "the call was cancelled").withCause(e);
  }

  private Map<String, Tensor> values(Map<String, Tensor> results) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    results.forEach(
        (name, tensor) -> {
          TensorSpec spec = signature.output(name).orElseThrow();
          out.put(name, spec.categorical() ? Levels.values(spec, tensor) : tensor);
        });
    return out;
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
