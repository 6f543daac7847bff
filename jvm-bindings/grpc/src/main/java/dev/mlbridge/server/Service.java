package dev.mlbridge.server;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Tensor;
import dev.mlbridge.grpc.inference.InferParameter;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.wire.Wire;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** What a request for inference does, whatever carried it. */
final class Service {
  private static final long LONGEST_US = Long.MAX_VALUE / 1000;
  private static final ScheduledThreadPoolExecutor ALARMS = alarms();

  private final Repository repository;

  Service(Repository repository) {
    this.repository = repository;
  }

  private static ScheduledThreadPoolExecutor alarms() {
    ScheduledThreadPoolExecutor out =
        new ScheduledThreadPoolExecutor(
            1,
            work -> {
              Thread thread = new Thread(work, "mlbridge-deadlines");
              thread.setDaemon(true);
              return thread;
            });
    out.setRemoveOnCancelPolicy(true);
    return out;
  }

  /** Who calls: the time they give, and how their giving up reaches the call. */
  interface Caller {
    Optional<Duration> remaining();

    /** Cancels the call when the caller gives up; returns what takes that back. */
    Runnable tie(Call call);
  }

  ModelInferResponse infer(ModelInferRequest request, Caller caller) throws Refused {
    long began = System.nanoTime();
    Served served = hold(request.getModelName(), request.getModelVersion());
    try {
      return answered(served, request, caller, began);
    } catch (Refused e) {
      served.statistics.failed(System.nanoTime() - began);
      throw e;
    } finally {
      served.release();
    }
  }

  private static ModelInferResponse answered(Served served, ModelInferRequest request, Caller caller, long began) throws Refused {
    Codec.Decoded how;
    Call call;
    Optional<Duration> own;
    try {
      how = served.codec.decode(request);
      own = timeout(request);
      call = Call.of(how.names(), sooner(caller.remaining(), own));
    } catch (MlbridgeException e) {
      throw new Refused(Reply.refusal(e));
    }
    long decoded = System.nanoTime();
    Runnable untie = caller.tie(call);
    // gRPC keeps the deadline of the call itself; the request's own is kept here
    Optional<Future<?>> alarm = own.map(left -> ALARMS.schedule(call::cancel, left.toNanos(), TimeUnit.NANOSECONDS));
    try {
      Served.Ran ran = served.run(how.feeds(), call);
      long computed = System.nanoTime();
      ModelInferResponse answer = encoded(served, ran.results(), request.getId(), how);
      long waited = ran.startedNs() - decoded;
      served.statistics.answered(
          rows(served, how), new Statistics.Course(decoded - began, waited, computed - ran.startedNs(), System.nanoTime() - computed));
      return answer;
    } finally {
      untie.run();
      alarm.ifPresent(a -> a.cancel(false));
    }
  }

  /** Returns the rows of a call of the model; one where its rows have no meaning. */
  private static long rows(Served served, Codec.Decoded how) {
    return served.model.signature().batched() ? Math.max(1, how.feeds().values().iterator().next().dim(0)) : 1;
  }

  private static ModelInferResponse encoded(Served served, Map<String, Tensor> results, String id, Codec.Decoded how)
      throws Refused {
    try {
      return served.codec.encode(results, id, how);
    } catch (RuntimeException e) { // the model answered what has no form on the wire: its failure, not the caller's
      MlbridgeException failed = MlbridgeException.of(Kind.INFERENCE, String.valueOf(e.getMessage())).withCause(e);
      throw new Refused(Reply.inside(failed, "model " + served.name + "@" + served.version));
    }
  }

  private static Optional<Duration> timeout(ModelInferRequest request) {
    InferParameter value = request.getParametersMap().get("timeout");
    if (value == null) {
      return Optional.empty();
    }
    long us =
        switch (value.getParameterChoiceCase()) {
          case INT64_PARAM -> value.getInt64Param();
          case UINT64_PARAM -> value.getUint64Param() < 0 ? Long.MAX_VALUE : value.getUint64Param();
          default -> -1;
        };
    if (us < 0) {
      throw Wire.input("the parameter 'timeout' must be a whole number of microseconds");
    }
    return us == 0 ? Optional.empty() : Optional.of(Duration.ofNanos(Math.min(us, LONGEST_US) * 1000));
  }

  private static Optional<Duration> sooner(Optional<Duration> a, Optional<Duration> b) {
    return a.isEmpty() ? b : b.isEmpty() || a.get().compareTo(b.get()) < 0 ? a : b;
  }

  private Served hold(String name, String version) throws Refused {
    try {
      return repository.hold(name, version);
    } catch (MlbridgeException e) {
      throw new Refused(Reply.refusal(e));
    }
  }
}
