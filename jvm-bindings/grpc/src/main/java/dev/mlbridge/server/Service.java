package dev.mlbridge.server;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.InferParameter;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.grpc.inference.ModelMetadataRequest;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import dev.mlbridge.grpc.inference.ModelMetadataResponse.TensorMetadata;
import dev.mlbridge.grpc.inference.ServerMetadataResponse;
import dev.mlbridge.grpc.v1.DescribeRequest;
import dev.mlbridge.grpc.v1.DescribeResponse;
import dev.mlbridge.wire.Wire;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** What the protocol's calls do, whatever carried them. */
final class Service {
  private static final List<String> EXTENSIONS = List.of("binary_tensor_data", "parameters", "mlbridge.describe");
  private static final long LONGEST_US = Long.MAX_VALUE / 1000;
  private static final ScheduledThreadPoolExecutor ALARMS = alarms();

  private final Repository repository;
  private final boolean writeSignature;

  Service(Repository repository, boolean writeSignature) {
    this.repository = repository;
    this.writeSignature = writeSignature;
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

  // -------------------------------------------------- inference

  ModelInferResponse infer(ModelInferRequest request, Caller caller) throws Refused {
    Served served = hold(request.getModelName(), request.getModelVersion());
    try {
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
      Runnable untie = caller.tie(call);
      // gRPC keeps the deadline of the call itself; the request's own is kept here
      Optional<Future<?>> alarm = own.map(left -> ALARMS.schedule(call::cancel, left.toNanos(), TimeUnit.NANOSECONDS));
      try {
        Map<String, Tensor> results = served.run(how.feeds(), call);
        return encoded(served, results, request.getId(), how);
      } finally {
        untie.run();
        alarm.ifPresent(a -> a.cancel(false));
      }
    } finally {
      served.release();
    }
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

  // -------------------------------------------------- about models

  boolean draining() {
    return repository.draining();
  }

  boolean modelReady(String name, String version) {
    return repository.ready(name, version);
  }

  ServerMetadataResponse serverMetadata() {
    return ServerMetadataResponse.newBuilder().setName("mlbridge").setVersion(version()).addAllExtensions(EXTENSIONS).build();
  }

  private static String version() {
    return Optional.ofNullable(Service.class.getPackage().getImplementationVersion()).orElse("0");
  }

  ModelMetadataResponse modelMetadata(ModelMetadataRequest request) throws Refused {
    return about(
        request.getName(),
        request.getVersion(),
        served -> {
          Signature signature = served.model.signature();
          ModelMetadataResponse.Builder out =
              ModelMetadataResponse.newBuilder()
                  .setName(served.name)
                  .addAllVersions(repository.versions(served.name))
                  .setPlatform("mlbridge_" + runtime(served));
          signature.inputs().forEach(s -> out.addInputs(metadata(s)));
          signature.outputs().forEach(s -> out.addOutputs(metadata(s)));
          if (writeSignature) {
            out.putProperties("mlbridge.signature", signature.toJson());
          }
          return out.build();
        });
  }

  private static TensorMetadata metadata(TensorSpec spec) {
    return TensorMetadata.newBuilder().setName(spec.name()).setDatatype(Wire.datatype(spec)).addAllShape(Wire.shape(spec)).build();
  }

  DescribeResponse describe(DescribeRequest request) throws Refused {
    return about(
        request.getName(),
        request.getVersion(),
        served ->
            DescribeResponse.newBuilder()
                .setName(served.name)
                .setVersion(served.version)
                .setSignature(served.model.signature().toJson())
                .setRoute(runtime(served))
                .setWhy(served.model.route().replaceFirst("^[^:]*: ", ""))
                .setDevice("jvm")
                .build());
  }

  private static String runtime(Served served) {
    return served.model.route().replaceFirst(":.*", "");
  }

  private <T> T about(String name, String version, Function<Served, T> answer) throws Refused {
    Served served = hold(name, version);
    try {
      return answer.apply(served);
    } finally {
      served.release();
    }
  }
}
