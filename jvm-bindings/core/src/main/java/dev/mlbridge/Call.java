package dev.mlbridge;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CancellationException;

/** What belongs to one call of a session: the outputs asked for, the time left, and whether the caller gave up. */
public final class Call {
  private final List<String> outputs;
  private final long endsAt;
  private final boolean limited;
  private final List<Runnable> listeners = new ArrayList<>(0);
  private volatile boolean cancelled;

  private Call(List<String> outputs, boolean limited, long endsAt) {
    this.outputs = List.copyOf(outputs);
    this.limited = limited;
    this.endsAt = endsAt;
  }

  /** Makes a call for every output and without a limit of time. */
  public static Call all() {
    return new Call(List.of(), false, 0);
  }

  /** Makes a call for some outputs, all if the list is empty, that ends after the timeout if there is one. */
  public static Call of(List<String> outputs, Optional<Duration> timeout) {
    return new Call(
        outputs, timeout.isPresent(), timeout.map(d -> System.nanoTime() + d.toNanos()).orElse(0L));
  }

  /** Returns the outputs asked for, in order; empty asks for all. */
  public List<String> outputs() {
    return outputs;
  }

  /** Returns whether the output is asked for. */
  public boolean wants(String output) {
    return outputs.isEmpty() || outputs.contains(output);
  }

  /** Returns the time left, negative once passed, or nothing where there is no limit. */
  public Optional<Duration> remaining() {
    return limited ? Optional.of(Duration.ofNanos(endsAt - System.nanoTime())) : Optional.empty();
  }

  /** Returns whether the caller gave up. */
  public boolean cancelled() {
    return cancelled;
  }

  /** Notes that the caller gave up, and tells who asked to be told. */
  public void cancel() {
    List<Runnable> told;
    synchronized (listeners) {
      if (cancelled) {
        return;
      }
      cancelled = true;
      told = List.copyOf(listeners);
      listeners.clear();
    }
    told.forEach(Runnable::run);
  }

  /**
   * Runs the action once when the caller gives up, at once if that has happened.
   *
   * @return what takes the action back
   */
  public Runnable onCancel(Runnable action) {
    synchronized (listeners) {
      if (!cancelled) {
        listeners.add(action);
        return () -> forget(action);
      }
    }
    action.run();
    return () -> {};
  }

  private void forget(Runnable action) {
    synchronized (listeners) {
      listeners.remove(action);
    }
  }

  /** Throws if the call must end now; long computations ask from time to time. */
  public void check() {
    if (cancelled || Thread.currentThread().isInterrupted()) {
      throw new CancellationException("the call was cancelled");
    }
    if (limited && endsAt - System.nanoTime() <= 0) {
      throw MlbridgeException.of(MlbridgeException.Kind.TIMEOUT, "the deadline passed");
    }
  }
}
