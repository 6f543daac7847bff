package dev.mlbridge.server;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Model;
import dev.mlbridge.Tensor;
import java.util.Map;
import java.util.Optional;

/** One version of one model, ready to answer; closed, where it is the server's, when the last request has let go. */
final class Served {
  final String name;
  final String version;
  final Model model;
  final Codec codec;
  final Turns turns;
  final Statistics statistics = new Statistics();
  private final boolean owned;
  private int held;
  private boolean draining;
  private boolean retired;

  Served(String name, String version, Model model, boolean owned, int maxQueue, boolean alwaysRaw) {
    this.name = name;
    this.version = version;
    this.model = model;
    this.owned = owned;
    this.codec = new Codec(model.signature(), name, version, alwaysRaw);
    this.turns = new Turns(model.maxConcurrency(), maxQueue);
  }

  /** What a model answered, and when its turn began. */
  record Ran(Map<String, Tensor> results, long startedNs) {}

  /** Runs decoded feeds once it is their turn. A caller that gives up interrupts the model's thread. */
  Ran run(Map<String, Tensor> feeds, Call call) throws Refused {
    try {
      turns.enter(call);
    } catch (MlbridgeException e) {
      throw new Refused(Reply.refusal(e, turns.drainMs()));
    }
    long began = System.nanoTime();
    Interruption interruption = new Interruption(Thread.currentThread());
    Runnable forget = call.onCancel(interruption::interrupt);
    try {
      return new Ran(model.run(feeds, call), began);
    } catch (ThreadDeath e) {
      throw e;
    } catch (Throwable e) { // errors too: a model's stack overflow is its own request's
      throw new Refused(Reply.inside(cause(e, call), "model " + name + "@" + version));
    } finally {
      forget.run();
      interruption.end();
      turns.leave(System.nanoTime() - began);
    }
  }

  /** What a model throws because it was told to end is the caller's doing. */
  private static Throwable cause(Throwable e, Call call) {
    if (call.remaining().map(d -> d.isNegative() || d.isZero()).orElse(false)) {
      return MlbridgeException.of(Kind.TIMEOUT, "the deadline passed").withCause(e);
    }
    return call.cancelled() ? MlbridgeException.of(Kind.CANCELLED, "the call was cancelled").withCause(e) : e;
  }

  /** Interrupts a thread while it runs a model, and never afterwards. */
  private static final class Interruption {
    private Optional<Thread> running;

    Interruption(Thread thread) {
      running = Optional.of(thread);
    }

    synchronized void interrupt() {
      running.ifPresent(Thread::interrupt);
    }

    synchronized void end() {
      running = Optional.empty();
      Thread.interrupted(); // the thread goes on to other requests
    }
  }

  // -------------------------------------------------- holding

  /** Takes hold; false where it has been replaced meanwhile. What is held is accepted: a drain waits for it. */
  synchronized boolean hold() {
    if (retired) {
      return false;
    }
    if (draining) {
      throw Repository.shuttingDown();
    }
    held++;
    return true;
  }

  void release() {
    boolean ends;
    synchronized (this) {
      held--;
      notifyAll();
      ends = retired && held == 0;
    }
    if (ends) {
      close();
    }
  }

  synchronized void drain() {
    draining = true;
  }

  /** Waits until nothing is held; false where the time ran out first. */
  synchronized boolean await(long untilNs) throws InterruptedException {
    while (held > 0) {
      long left = untilNs - System.nanoTime();
      if (left <= 0) {
        return false;
      }
      wait(Math.max(1, left / 1_000_000));
    }
    return true;
  }

  /** Takes no more requests; closes once those that hold it have ended. */
  void retire() {
    boolean ends;
    synchronized (this) {
      ends = !retired && held == 0;
      retired = true;
    }
    if (ends) {
      close();
    }
  }

  private void close() {
    if (owned) {
      model.close();
    }
  }
}
