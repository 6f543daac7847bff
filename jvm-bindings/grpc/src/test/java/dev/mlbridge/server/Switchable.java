package dev.mlbridge.server;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;

/** Answers twice its input; can be held, and fails on a value: a test of a transport decides how fast a model is. */
final class Switchable implements Session {
  static final double POISON = 666;
  private final int concurrency;
  final Semaphore entered = new Semaphore(0);
  final Semaphore go = new Semaphore(Integer.MAX_VALUE / 2);
  volatile boolean interrupted;

  Switchable(int concurrency) {
    this.concurrency = concurrency;
  }

  @Override
  public Signature signature() {
    return new Signature(
        List.of(TensorSpec.of("x", DType.FLOAT64, Dim.ROWS, Dim.of(3)).allowingMissing()),
        List.of(TensorSpec.of("y", DType.FLOAT64, Dim.ROWS, Dim.of(3)).allowingMissing()));
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws InterruptedException {
    entered.release();
    try {
      go.acquire();
    } catch (InterruptedException e) {
      interrupted = true;
      throw e;
    }
    Tensor x = feeds.get("x");
    double[] out = x.toDoubles();
    for (int i = 0; i < out.length; i++) {
      if (out[i] == POISON) {
        throw new IllegalStateException("/secret/path: poisoned");
      }
      out[i] *= 2;
    }
    return Map.of("y", Tensor.of(out, x.shape()));
  }

  void hold() {
    go.drainPermits();
  }

  void release() {
    go.release(Integer.MAX_VALUE / 2);
  }

  @Override
  public int maxConcurrency() {
    return concurrency;
  }
}
