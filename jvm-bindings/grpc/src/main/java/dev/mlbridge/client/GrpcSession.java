package dev.mlbridge.client;

import com.google.protobuf.ByteString;
import dev.mlbridge.AsyncSession;
import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferRequest.InferInputTensor;
import dev.mlbridge.grpc.inference.ModelInferRequest.InferRequestedOutputTensor;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.grpc.inference.ModelInferResponse.InferOutputTensor;
import dev.mlbridge.wire.Contents;
import dev.mlbridge.wire.Wire;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** A served model. Any number of threads may run it; they share one connection. */
final class GrpcSession implements AsyncSession {
  private final Line line;
  private final Place place;
  private final Signature signature;
  private final boolean codes; // whether the server speaks codes of categories
  private final Duration timeout;
  private final long maxBytes;
  private final boolean anyCoded;

  GrpcSession(Line line, Place place, Told told, Settings settings) {
    this.line = line;
    this.place = place;
    this.codes = told.codes();
    this.signature = settings.signature().orElse(told.signature());
    this.timeout = settings.timeout();
    this.maxBytes = settings.maxMessageBytes();
    this.anyCoded = codes && signature.outputs().stream().anyMatch(TensorSpec::categorical);
    settings.signature().ifPresent(given -> sameNames(given, told.signature()));
  }

  private static void sameNames(Signature given, Signature told) {
    List<String> problems = new ArrayList<>();
    for (TensorSpec s : given.inputs()) {
      if (told.input(s.name()).isEmpty()) {
        problems.add("the server has no input '" + s.name() + "'");
      }
    }
    for (TensorSpec s : given.outputs()) {
      if (told.output(s.name()).isEmpty()) {
        problems.add("the server has no output '" + s.name() + "'");
      }
    }
    if (!problems.isEmpty()) {
      throw MlbridgeException.of(Kind.SIGNATURE, problems);
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
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    List<Map<String, Tensor>> answers = new ArrayList<>();
    for (Map<String, Tensor> part : Parts.of(signature, feeds, maxBytes)) {
      answers.add(read(line.ask(GRPCInferenceServiceGrpc.getModelInferMethod(), request(part, call), call, timeout), call));
    }
    return Parts.joined(answers);
  }

  @Override
  public CompletableFuture<Map<String, Tensor>> runAsync(Map<String, Tensor> feeds, Call call) {
    CompletableFuture<List<Map<String, Tensor>>> all = CompletableFuture.completedFuture(new ArrayList<>());
    for (Map<String, Tensor> part : Parts.of(signature, feeds, maxBytes)) {
      ModelInferRequest request = request(part, call); // one part after the other: a server is not to be flooded
      all =
          all.thenCompose(
              answers ->
                  line.askLater(GRPCInferenceServiceGrpc.getModelInferMethod(), request, call, timeout)
                      .thenApply(
                          message -> {
                            answers.add(read(message, call));
                            return answers;
                          }));
    }
    return all.thenApply(Parts::joined);
  }

  // -------------------------------------------------- messages

  private ModelInferRequest request(Map<String, Tensor> feeds, Call call) {
    ModelInferRequest.Builder out = ModelInferRequest.newBuilder().setModelName(place.model()).setModelVersion(place.version());
    for (TensorSpec spec : signature.inputs()) {
      Tensor value = feeds.get(spec.name());
      InferInputTensor.Builder tensor = InferInputTensor.newBuilder().setName(spec.name()).setDatatype(spec.dtype().oip());
      for (int i = 0; i < value.rank(); i++) {
        tensor.addShape(value.dim(i));
      }
      Wire.missing(value).ifPresent(list -> tensor.putParameters(Contents.MISSING, Contents.text(list)));
      out.addInputs(tensor).addRawInputContents(Wire.pack(value));
    }
    if (!call.outputs().isEmpty() || anyCoded) {
      wanted(call).forEach(name -> out.addOutputs(asked(name)));
    }
    return out.build();
  }

  private InferRequestedOutputTensor asked(String name) {
    InferRequestedOutputTensor.Builder out = InferRequestedOutputTensor.newBuilder().setName(name);
    if (codes && signature.output(name).orElseThrow().categorical()) {
      out.putParameters("encoding", Contents.text("codes"));
    }
    return out.build();
  }

  private List<String> wanted(Call call) {
    return call.outputs().isEmpty() ? signature.outputs().stream().map(TensorSpec::name).toList() : call.outputs();
  }

  private Map<String, Tensor> read(ModelInferResponse answer, Call call) {
    List<ByteString> raws = answer.getRawOutputContentsList();
    if (!raws.isEmpty() && raws.size() != answer.getOutputsCount()) {
      throw malformed(raws.size() + " raw outputs for " + answer.getOutputsCount() + " tensors");
    }
    Map<String, Tensor> found = new LinkedHashMap<>();
    for (int i = 0; i < answer.getOutputsCount(); i++) {
      InferOutputTensor tensor = answer.getOutputs(i);
      if (signature.output(tensor.getName()).isPresent()) {
        found.put(tensor.getName(), tensor(tensor, raws.isEmpty() ? null : raws.get(i)));
      }
    }
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : wanted(call)) {
      if (!found.containsKey(name)) {
        throw malformed("the answer lacks '" + name + "'");
      }
      out.put(name, found.get(name));
    }
    return out;
  }

  private Tensor tensor(InferOutputTensor tensor, ByteString raw) {
    TensorSpec spec = signature.output(tensor.getName()).orElseThrow();
    String where = "output " + Wire.clip(tensor.getName());
    Tensor value;
    try {
      value =
          raw == null
              ? Contents.read(tensor.getContents(), tensor.getDatatype(), tensor.getShapeList(), where)
              : Wire.raw(raw, tensor.getDatatype(), tensor.getShapeList(), where);
      if (value.dtype() == DType.STRING) {
        for (int i : Contents.missing(tensor.getParametersMap(), value.size(), where)) {
          value.strings()[i] = null;
        }
      }
    } catch (MlbridgeException e) {
      throw malformed("the answer is malformed: " + e.getMessage()).withCause(e);
    }
    if (value.dtype() != spec.dtype() || value.rank() != spec.shape().size()) {
      throw malformed(where + " is " + value + ", expected " + spec);
    }
    return value;
  }

  private MlbridgeException malformed(String text) {
    return MlbridgeException.of(Kind.INFERENCE, place + ": " + text);
  }

  @Override
  public void close() {
    line.close();
  }
}
