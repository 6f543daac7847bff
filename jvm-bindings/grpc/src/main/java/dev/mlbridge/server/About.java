package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Signature;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.DataType;
import dev.mlbridge.grpc.inference.ModelConfig;
import dev.mlbridge.grpc.inference.ModelConfigRequest;
import dev.mlbridge.grpc.inference.ModelConfigResponse;
import dev.mlbridge.grpc.inference.ModelInput;
import dev.mlbridge.grpc.inference.ModelMetadataRequest;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import dev.mlbridge.grpc.inference.ModelMetadataResponse.TensorMetadata;
import dev.mlbridge.grpc.inference.ModelOutput;
import dev.mlbridge.grpc.inference.ModelStatistics;
import dev.mlbridge.grpc.inference.ModelStatisticsRequest;
import dev.mlbridge.grpc.inference.ModelStatisticsResponse;
import dev.mlbridge.grpc.inference.ModelTransactionPolicy;
import dev.mlbridge.grpc.inference.ServerMetadataResponse;
import dev.mlbridge.grpc.v1.DescribeRequest;
import dev.mlbridge.grpc.v1.DescribeResponse;
import dev.mlbridge.wire.Wire;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;

/** What is told of the server and its models. */
final class About {
  private static final List<String> EXTENSIONS =
      List.of("binary_tensor_data", "parameters", "statistics", "model_configuration", "mlbridge.describe");

  private final Repository repository;
  private final boolean writeSignature;

  About(Repository repository, boolean writeSignature) {
    this.repository = repository;
    this.writeSignature = writeSignature;
  }

  boolean draining() {
    return repository.draining();
  }

  boolean ready(String name, String version) {
    return repository.ready(name, version);
  }

  ServerMetadataResponse server() {
    return ServerMetadataResponse.newBuilder().setName("mlbridge").setVersion(version()).addAllExtensions(EXTENSIONS).build();
  }

  private static String version() {
    return Optional.ofNullable(About.class.getPackage().getImplementationVersion()).orElse("0");
  }

  ModelMetadataResponse metadata(ModelMetadataRequest request) throws Refused {
    return of(
        request.getName(),
        request.getVersion(),
        served -> {
          Signature signature = served.model.signature();
          ModelMetadataResponse.Builder out =
              ModelMetadataResponse.newBuilder()
                  .setName(served.name)
                  .addAllVersions(repository.versions(served.name))
                  .setPlatform(platform(served));
          signature.inputs().forEach(s -> out.addInputs(tensor(s)));
          signature.outputs().forEach(s -> out.addOutputs(tensor(s)));
          if (writeSignature) {
            out.putProperties("mlbridge.signature", signature.toJson());
          }
          return out.build();
        });
  }

  private static TensorMetadata tensor(TensorSpec spec) {
    return TensorMetadata.newBuilder().setName(spec.name()).setDatatype(Wire.datatype(spec)).addAllShape(Wire.shape(spec)).build();
  }

  /** Tells the part of a configuration that this server has. */
  ModelConfigResponse config(ModelConfigRequest request) throws Refused {
    return of(
        request.getName(),
        request.getVersion(),
        served -> {
          Signature signature = served.model.signature();
          boolean batched = signature.batched();
          ModelConfig.Builder out =
              ModelConfig.newBuilder()
                  .setName(served.name)
                  .setPlatform(platform(served))
                  .setBackend(runtime(served))
                  .setMaxBatchSize(batched ? Integer.MAX_VALUE : 0) // as many rows as a message holds
                  .setModelTransactionPolicy(ModelTransactionPolicy.getDefaultInstance());
          for (TensorSpec s : signature.inputs()) {
            out.addInput(ModelInput.newBuilder().setName(s.name()).setDataType(type(s)).addAllDims(dims(s, batched)));
          }
          for (TensorSpec s : signature.outputs()) {
            out.addOutput(ModelOutput.newBuilder().setName(s.name()).setDataType(type(s)).addAllDims(dims(s, batched)));
          }
          return ModelConfigResponse.newBuilder().setConfig(out).build();
        });
  }

  private static DataType type(TensorSpec spec) {
    String datatype = Wire.datatype(spec);
    return datatype.equals("BYTES") ? DataType.TYPE_STRING : DataType.valueOf("TYPE_" + datatype);
  }

  private static List<Long> dims(TensorSpec spec, boolean batched) {
    List<Long> shape = Wire.shape(spec);
    return batched ? shape.subList(1, shape.size()) : shape;
  }

  DescribeResponse describe(DescribeRequest request) throws Refused {
    return of(
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

  /** Tells what the models have done: all of them, or those of a name or a version. */
  ModelStatisticsResponse statistics(ModelStatisticsRequest request) throws Refused {
    String name = request.getName();
    String version = request.getVersion();
    if (!name.isEmpty()) {
      of(name, version, served -> served); // is there such a one?
    }
    ModelStatisticsResponse.Builder out = ModelStatisticsResponse.newBuilder();
    for (Served served : repository.served()) {
      if ((name.isEmpty() || name.equals(served.name)) && (version.isEmpty() || version.equals(served.version))) {
        ModelStatistics.Builder told = out.addModelStatsBuilder().setName(served.name).setVersion(served.version);
        served.statistics.write(told);
      }
    }
    return out.build();
  }

  private static String platform(Served served) {
    return "mlbridge_" + runtime(served);
  }

  private static String runtime(Served served) {
    return served.model.route().replaceFirst(":.*", "");
  }

  private <T> T of(String name, String version, Function<Served, T> answer) throws Refused {
    Served served;
    try {
      served = repository.hold(name, version);
    } catch (MlbridgeException e) {
      throw new Refused(Reply.refusal(e));
    }
    try {
      return answer.apply(served);
    } finally {
      served.release();
    }
  }
}
