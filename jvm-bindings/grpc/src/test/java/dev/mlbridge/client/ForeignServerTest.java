package dev.mlbridge.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.StatusCode;
import dev.mlbridge.Tensor;
import dev.mlbridge.Trust;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceImplBase;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.grpc.inference.ModelInferResponse.InferOutputTensor;
import dev.mlbridge.grpc.inference.ModelMetadataRequest;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import dev.mlbridge.grpc.inference.ModelMetadataResponse.TensorMetadata;
import dev.mlbridge.wire.Contents;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A server of others: the protocol alone, without mlbridge's Describe, and with habits of its own. */
class ForeignServerTest {
  private static final Map<String, Tensor> ROW = Map.of("x", Tensor.of(new float[] {1, 2}, 1, 2));

  private Function<ModelInferRequest, ModelInferResponse> answer = ForeignServerTest::raw;
  private ModelMetadataResponse metadata = metadata("FP32").build();
  private Server server;

  private final GRPCInferenceServiceImplBase service =
      new GRPCInferenceServiceImplBase() {
        @Override
        public void modelMetadata(ModelMetadataRequest request, StreamObserver<ModelMetadataResponse> out) {
          out.onNext(metadata);
          out.onCompleted();
        }

        @Override
        public void modelInfer(ModelInferRequest request, StreamObserver<ModelInferResponse> out) {
          try {
            out.onNext(answer.apply(request));
            out.onCompleted();
          } catch (RuntimeException e) {
            out.onError(e);
          }
        }
      };

  private static ModelMetadataResponse.Builder metadata(String datatype) {
    TensorMetadata tensor = TensorMetadata.newBuilder().setDatatype(datatype).addShape(-1).addShape(2).build();
    return ModelMetadataResponse.newBuilder()
        .setName("m")
        .addInputs(tensor.toBuilder().setName("x"))
        .addOutputs(tensor.toBuilder().setName("y"));
  }

  private static InferOutputTensor.Builder y(ModelInferRequest request) {
    return InferOutputTensor.newBuilder().setName("y").setDatatype("FP32").addAllShape(request.getInputs(0).getShapeList());
  }

  private static ModelInferResponse raw(ModelInferRequest request) {
    return ModelInferResponse.newBuilder().addOutputs(y(request)).addRawOutputContents(request.getRawInputContents(0)).build();
  }

  @BeforeEach
  void serve() throws IOException {
    server = NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0)).addService(service).build().start();
  }

  @AfterEach
  void end() {
    server.shutdownNow();
  }

  private Model load() {
    return Models.load("grpc://127.0.0.1:" + server.getPort() + "/m", Trust.DATA, Map.of());
  }

  @Test
  void plainMetadataMakesASignatureThatPromisesNothing() {
    try (Model model = load()) {
      assertEquals("x: float32[?, 2] -> y: float32[?, 2]", model.signature().toString());
      assertEquals(ROW.get("x"), model.predict(ROW).get("y"));
    }
  }

  @Test
  void aTypedAnswerIsReadToo() {
    Tensor typed = Tensor.of(new float[] {3, 4}, 1, 2);
    answer = r -> ModelInferResponse.newBuilder().addOutputs(y(r).setContents(Contents.write(typed))).build();
    try (Model model = load()) {
      assertEquals(typed, model.predict(ROW).get("y"));
    }
  }

  @Test
  void aSignatureInThePropertiesIsTaken() {
    String json = "{\"version\":1,\"inputs\":[{\"name\":\"x\",\"dtype\":\"float32\",\"shape\":[\"rows\",2]}],"
        + "\"outputs\":[{\"name\":\"y\",\"dtype\":\"float32\",\"shape\":[\"rows\",2]}]}";
    metadata = metadata("FP32").putProperties("mlbridge.signature", json).build();
    try (Model model = load()) {
      assertTrue(model.signature().batched());
    }
  }

  @Test
  void bfloat16IsRefusedByName() {
    metadata = metadata("BF16").build();
    MlbridgeException e = assertThrows(MlbridgeException.class, this::load);
    assertEquals(StatusCode.UNIMPLEMENTED, e.code());
    assertTrue(e.getMessage().contains("BF16"));
  }

  @Test
  void malformedAnswersAreInferenceErrors() {
    List<Function<ModelInferRequest, ModelInferResponse>> broken =
        List.of(
            r -> ModelInferResponse.getDefaultInstance(),
            r -> raw(r).toBuilder().addRawOutputContents(ByteString.EMPTY).build(),
            r -> raw(r).toBuilder().setRawOutputContents(0, ByteString.copyFrom(new byte[7])).build(),
            r -> raw(r).toBuilder().setOutputs(0, y(r).setDatatype("INT32")).build(),
            r -> raw(r).toBuilder().setOutputs(0, y(r).clearShape().addShape(2)).build());
    try (Model model = load()) {
      for (Function<ModelInferRequest, ModelInferResponse> one : broken) {
        answer = one;
        MlbridgeException e = assertThrows(MlbridgeException.class, () -> model.predict(ROW));
        assertEquals(Kind.INFERENCE, e.kind(), e.toString());
      }
    }
  }

  @Test
  void statusCodesOfOthersBecomeKinds() {
    Map<Status, Kind> kinds =
        Map.of(
            Status.INVALID_ARGUMENT, Kind.INPUT,
            Status.NOT_FOUND, Kind.NOT_FOUND,
            Status.UNIMPLEMENTED, Kind.UNSUPPORTED,
            Status.UNAVAILABLE, Kind.BRIDGE,
            Status.UNAUTHENTICATED, Kind.ACCESS,
            Status.INTERNAL, Kind.INFERENCE,
            Status.UNKNOWN, Kind.INFERENCE);
    try (Model model = load()) {
      kinds.forEach(
          (status, kind) -> {
            answer =
                r -> {
                  throw status.withDescription("why").asRuntimeException();
                };
            MlbridgeException e = assertThrows(MlbridgeException.class, () -> model.predict(ROW));
            assertEquals(kind, e.kind());
            assertEquals(status.getCode().value(), e.code().number());
            assertTrue(e.getMessage().contains("why"));
          });
    }
  }
}
