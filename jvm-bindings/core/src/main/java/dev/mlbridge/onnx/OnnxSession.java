package dev.mlbridge.onnx;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** One graph in ONNX Runtime, on the CPU. */
final class OnnxSession implements Session {
  private final OrtEnvironment environment;
  private final OrtSession session;
  private final Signature signature;

  private OnnxSession(OrtEnvironment environment, OrtSession session, Signature signature) {
    this.environment = environment;
    this.session = session;
    this.signature = signature;
  }

  static Session open(byte[] bytes, Optional<Signature> given, Map<String, String> options) {
    OrtEnvironment environment = OrtEnvironment.getEnvironment();
    try (OrtSession.SessionOptions wishes = new OrtSession.SessionOptions()) {
      wishes.setIntraOpNumThreads(Integer.parseInt(options.getOrDefault("threads", "1")));
      wishes.setInterOpNumThreads(1);
      OrtSession session = environment.createSession(bytes, wishes);
      Signature signature =
          given
              .or(() -> own(session))
              .orElseThrow(
                  () ->
                      MlbridgeException.of(Kind.SIGNATURE, "the ONNX file holds no mlbridge signature")
                          .withHint("save it as a package from Python"));
      checkNames(signature, session);
      return new OnnxSession(environment, session, signature);
    } catch (OrtException e) {
      throw MlbridgeException.of(Kind.ARTIFACT, "ONNX Runtime does not load it: " + e.getMessage()).withCause(e);
    }
  }

  private static Optional<Signature> own(OrtSession session) {
    try {
      return session.getMetadata().getCustomMetadataValue("mlbridge.signature").map(Signature::fromJson);
    } catch (OrtException e) {
      throw MlbridgeException.of(Kind.ARTIFACT, "its metadata cannot be read: " + e.getMessage()).withCause(e);
    }
  }

  private static void checkNames(Signature signature, OrtSession session) {
    Set<String> lacks = new LinkedHashSet<>(session.getInputNames());
    signature.inputs().forEach(s -> lacks.remove(s.name()));
    Set<String> absent = new LinkedHashSet<>();
    signature.outputs().stream().map(TensorSpec::name).forEach(absent::add);
    absent.removeAll(session.getOutputNames());
    if (!lacks.isEmpty() || !absent.isEmpty()) {
      throw MlbridgeException.of(
          Kind.ARTIFACT, "the graph and the signature differ: inputs " + lacks + ", outputs " + absent);
    }
  }

  @Override
  public Signature signature() {
    return signature;
  }

  @Override
  public int maxConcurrency() {
    return Integer.MAX_VALUE;
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws OrtException {
    Set<String> wanted = new LinkedHashSet<>();
    signature.outputs().stream().map(TensorSpec::name).filter(call::wants).forEach(wanted::add);
    Map<String, OnnxTensor> inputs = new LinkedHashMap<>();
    try {
      for (TensorSpec spec : signature.inputs()) {
        if (session.getInputNames().contains(spec.name())) {
          inputs.put(spec.name(), tensor(feeds.get(spec.name())));
        }
      }
      try (OrtSession.Result result = session.run(inputs, wanted)) {
        Map<String, Tensor> out = new LinkedHashMap<>();
        for (String name : wanted) {
          out.put(name, tensor(name, result.get(name).orElseThrow()));
        }
        return out;
      }
    } finally {
      inputs.values().forEach(OnnxTensor::close);
    }
  }

  private OnnxTensor tensor(Tensor t) throws OrtException {
    if (t.dtype() == DType.STRING) {
      if (Arrays.asList(t.strings()).contains(null)) {
        throw MlbridgeException.of(Kind.INPUT, "ONNX has no missing strings");
      }
      return OnnxTensor.createTensor(environment, t.strings(), t.shape());
    }
    ByteBuffer bytes = t.bytes();
    ByteBuffer direct = ByteBuffer.allocateDirect(bytes.remaining()).order(ByteOrder.nativeOrder()).put(bytes).flip();
    return OnnxTensor.createTensor(environment, direct, t.shape(), javaType(t.dtype()));
  }

  private static OnnxJavaType javaType(DType dtype) {
    return switch (dtype) {
      case BOOL -> OnnxJavaType.BOOL;
      case INT8 -> OnnxJavaType.INT8;
      case UINT8 -> OnnxJavaType.UINT8;
      case INT16 -> OnnxJavaType.INT16;
      case INT32 -> OnnxJavaType.INT32;
      case INT64 -> OnnxJavaType.INT64;
      case FLOAT16 -> OnnxJavaType.FLOAT16;
      case FLOAT32 -> OnnxJavaType.FLOAT;
      case FLOAT64 -> OnnxJavaType.DOUBLE;
      default -> throw MlbridgeException.of(Kind.UNSUPPORTED, "ONNX Runtime for Java has no " + dtype);
    };
  }

  private static Tensor tensor(String name, OnnxValue value) throws OrtException {
    if (!(value instanceof OnnxTensor t)) {
      throw MlbridgeException.of(Kind.UNSUPPORTED, "output '" + name + "' is no tensor");
    }
    TensorInfo info = t.getInfo();
    if (info.type == OnnxJavaType.STRING) {
      Object strings = t.getValue();
      String[] flat =
          strings instanceof String s
              ? new String[] {s}
              : strings instanceof String[] one ? one : ai.onnxruntime.OrtUtil.flattenString((Object[]) strings);
      return Tensor.ofStrings(flat, info.getShape());
    }
    DType dtype = dtype(name, info.onnxType.name().substring("ONNX_TENSOR_ELEMENT_DATA_TYPE_".length()));
    ByteBuffer bytes = t.getByteBuffer();
    return Tensor.ofBytes(dtype, bytes, info.getShape());
  }

  /** The numbers of ONNX Runtime's Java enum are not those of ONNX: only its names are. */
  private static DType dtype(String name, String kind) {
    return switch (kind) {
      case "FLOAT" -> DType.FLOAT32;
      case "DOUBLE" -> DType.FLOAT64;
      case "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FLOAT16" -> DType.valueOf(kind);
      default -> throw MlbridgeException.of(Kind.UNSUPPORTED, "output '" + name + "' is " + kind);
    };
  }

  @Override
  public void close() {
    try {
      session.close();
    } catch (OrtException e) {
      throw MlbridgeException.of(Kind.INFERENCE, "the session did not close: " + e.getMessage()).withCause(e);
    }
  }
}
