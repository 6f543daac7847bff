package dev.mlbridge.server;

import dev.mlbridge.grpc.inference.InferBatchStatistics;
import dev.mlbridge.grpc.inference.InferStatistics;
import dev.mlbridge.grpc.inference.ModelStatistics;
import dev.mlbridge.grpc.inference.StatisticDuration;
import java.util.Map;
import java.util.TreeMap;

/** Counts and durations of one model version since it was served: what ModelStatistics answers. */
final class Statistics {
  private static final int MAX_SIZES = 256; // different batch sizes kept one by one; beyond, powers of two

  private final Total success = new Total();
  private final Total fail = new Total();
  private final Total queue = new Total();
  private final Total input = new Total();
  private final Total infer = new Total();
  private final Total output = new Total();
  private final Map<Long, Total> batches = new TreeMap<>();
  private long rows;
  private long lastMs;

  /** How often, and nanoseconds in all. */
  private static final class Total {
    long count;
    long ns;

    void add(long took) {
      count++;
      ns += took;
    }

    StatisticDuration told() {
      return StatisticDuration.newBuilder().setCount(count).setNs(ns).build();
    }
  }

  /** The nanoseconds that the parts of an answered request took. */
  record Course(long input, long queue, long infer, long output) {}

  synchronized void answered(long ofRows, Course took) {
    success.add(took.input + took.queue + took.infer + took.output);
    input.add(took.input);
    queue.add(took.queue);
    infer.add(took.infer);
    output.add(took.output);
    rows += ofRows;
    long size = batches.size() < MAX_SIZES || batches.containsKey(ofRows) ? ofRows : Long.highestOneBit(ofRows - 1) << 1;
    batches.computeIfAbsent(size, s -> new Total()).add(took.infer);
    lastMs = System.currentTimeMillis();
  }

  /** Counts a request that failed, refused input among them. */
  synchronized void failed(long tookNs) {
    fail.add(tookNs);
  }

  synchronized void write(ModelStatistics.Builder out) {
    InferStatistics.Builder totals =
        InferStatistics.newBuilder()
            .setSuccess(success.told())
            .setFail(fail.told())
            .setQueue(queue.told())
            .setComputeInput(input.told())
            .setComputeInfer(infer.told())
            .setComputeOutput(output.told());
    out.setLastInference(lastMs).setInferenceCount(rows).setExecutionCount(success.count).setInferenceStats(totals);
    batches.forEach((size, took) -> out.addBatchStats(InferBatchStatistics.newBuilder().setBatchSize(size).setComputeInfer(took.told())));
  }
}
