package dev.mlbridge.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.UnknownFieldSet;
import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc;
import dev.mlbridge.grpc.inference.ModelMetadataRequest;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import dev.mlbridge.grpc.inference.ModelMetadataResponse.TensorMetadata;
import dev.mlbridge.grpc.v1.BridgeGrpc;
import dev.mlbridge.grpc.v1.DescribeRequest;
import dev.mlbridge.wire.Wire;
import io.grpc.MethodDescriptor;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * What a server tells of a model: by mlbridge's own Describe, else by the metadata's properties, else by plain metadata.
 *
 * @param codes whether the server speaks codes of categories, as ours do
 */
record Told(Signature signature, boolean codes) {
  private static final String PROPERTY = "mlbridge.signature";
  private static final int PROPERTIES = 6; // the field that another dialect uses for a map of messages
  private static final MethodDescriptor<ModelMetadataRequest, byte[]> METADATA =
      GRPCInferenceServiceGrpc.getModelMetadataMethod()
          .toBuilder(GRPCInferenceServiceGrpc.getModelMetadataMethod().getRequestMarshaller(), new Bytes())
          .build();

  static Told by(Line line, Place place, Duration timeout) {
    try {
      DescribeRequest question = DescribeRequest.newBuilder().setName(place.model()).setVersion(place.version()).build();
      String json = line.ask(BridgeGrpc.getDescribeMethod(), question, Call.all(), timeout).getSignature();
      return new Told(Signature.fromJson(json), true);
    } catch (MlbridgeException e) {
      if (e.kind() != Kind.UNSUPPORTED) {
        throw e;
      }
    }
    ModelMetadataRequest question = ModelMetadataRequest.newBuilder().setName(place.model()).setVersion(place.version()).build();
    ModelMetadataResponse answer = parsed(line.ask(METADATA, question, Call.all(), timeout), place);
    String written = answer.getPropertiesMap().get(PROPERTY);
    return written != null ? new Told(Signature.fromJson(written), true) : new Told(made(answer, place), false);
  }

  /** A signature of plain metadata: no columns, no promise about rows; missing values are the model's affair. */
  private static Signature made(ModelMetadataResponse answer, Place place) {
    return new Signature(specs(answer.getInputsList(), true, place), specs(answer.getOutputsList(), false, place));
  }

  private static List<TensorSpec> specs(List<TensorMetadata> tensors, boolean inputs, Place place) {
    List<TensorSpec> out = new ArrayList<>();
    for (TensorMetadata t : tensors) {
      DType dtype = Wire.known(t.getDatatype(), place + ": tensor " + Wire.clip(t.getName()));
      List<Dim> shape = t.getShapeList().stream().map(d -> d < 0 ? Dim.ANY : Dim.of(d)).toList();
      boolean rounds = inputs && (dtype == DType.FLOAT32 || dtype == DType.FLOAT16);
      out.add(new TensorSpec(t.getName(), dtype, shape, List.of(), true, rounds));
    }
    return out;
  }

  private static ModelMetadataResponse parsed(byte[] message, Place place) {
    try {
      return ModelMetadataResponse.parseFrom(compatible(message));
    } catch (InvalidProtocolBufferException e) {
      throw MlbridgeException.of(Kind.INFERENCE, place + ": its metadata is malformed").withCause(e);
    }
  }

  /** Drops the properties where they are another dialect's map of messages and not of strings. */
  static byte[] compatible(byte[] message) throws InvalidProtocolBufferException {
    if (new String(message, StandardCharsets.ISO_8859_1).contains(PROPERTY)) {
      return message;
    }
    return UnknownFieldSet.parseFrom(message).toBuilder().clearField(PROPERTIES).build().toByteArray();
  }

  private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream in) {
      try {
        return in.readAllBytes();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }
}
