package dev.mlbridge.server;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** Who runs when: so many calls of a model at once, so many more waiting, in the order they came; the rest is refused. */
final class Turns {
  private static final double DECAY = 0.9; // of the mean time of a call, per call
  private static final long LEAST_MS = 10;
  private static final long MOST_MS = 10_000;

  private final int atOnce;
  private final int mostWaiting;
  private final Deque<Waiter> queue = new ArrayDeque<>();
  private int active;
  private double meanNs;

  private static final class Waiter {
    final Semaphore told = new Semaphore(0);
    boolean granted;
  }

  Turns(int atOnce, int mostWaiting) {
    this.atOnce = atOnce;
    this.mostWaiting = mostWaiting;
  }

  /** Takes a turn, waiting for it where there is room; {@link #leave} gives it back. */
  void enter(Call call) {
    Waiter waiter;
    synchronized (this) {
      if (active < atOnce && queue.isEmpty()) {
        active++;
        return;
      }
      if (queue.size() >= mostWaiting) {
        throw MlbridgeException.of(Kind.OVERLOADED, "the model's queue is full").withHint("try again later");
      }
      waiter = new Waiter();
      queue.add(waiter);
    }
    Runnable forget = call.onCancel(waiter.told::release);
    try {
      await(waiter, call);
    } finally {
      forget.run();
    }
  }

  private void await(Waiter waiter, Call call) {
    try {
      Optional<Duration> left = call.remaining();
      if (left.isEmpty()) {
        waiter.told.acquire();
      } else {
        waiter.told.tryAcquire(Math.max(left.get().toNanos(), 0), TimeUnit.NANOSECONDS);
      }
    } catch (InterruptedException e) { // the server is going down at once
      Thread.currentThread().interrupt();
    }
    boolean late = call.remaining().map(d -> d.isNegative() || d.isZero()).orElse(false);
    synchronized (this) {
      if (waiter.granted && !call.cancelled() && !late) {
        return;
      }
      if (waiter.granted) {
        active--;
        next();
      } else {
        queue.remove(waiter);
      }
    }
    throw late
        ? MlbridgeException.of(Kind.TIMEOUT, "the deadline passed while the request waited")
        : MlbridgeException.of(Kind.CANCELLED, "the caller cancelled");
  }

  /** Gives a turn back after a call that took so long. */
  synchronized void leave(long tookNs) {
    meanNs = meanNs == 0 ? tookNs : DECAY * meanNs + (1 - DECAY) * tookNs;
    active--;
    next();
  }

  private void next() {
    while (active < atOnce && !queue.isEmpty()) {
      Waiter first = queue.poll();
      first.granted = true;
      active++;
      first.told.release();
    }
  }

  /** Returns how many wait. */
  synchronized int waiting() {
    return queue.size();
  }

  /** Estimates how long the queue takes: what a refused client should wait. */
  synchronized long drainMs() {
    double ns = meanNs * (queue.size() + 1) / Math.max(1, Math.min(atOnce, Math.max(active, 1)));
    return Math.max(LEAST_MS, Math.min(MOST_MS, Math.round(ns / 1e6)));
  }
}
