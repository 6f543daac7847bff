package dev.mlbridge.server;

import com.google.protobuf.ByteString;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Feeds;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.InferParameter;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferRequest.InferInputTensor;
import dev.mlbridge.grpc.inference.ModelInferRequest.InferRequestedOutputTensor;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.wire.Contents;
import dev.mlbridge.wire.Wire;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/** One model's requests and answers: messages to feeds that satisfy its signature, results to messages. */
final class Codec {
  private static final int MAX_PROBLEMS = 20; // listed in one message; a request can have 100,000
  private static final List<String> UNSUPPORTED =
      List.of("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification");
  private static final List<String> SEQUENCE = List.of("sequence_id", "sequence_start", "sequence_end");

  private final Signature signature;
  private final String name;
  private final String version;
  private final boolean alwaysRaw;
  private final Map<String, TensorSpec> blocks = new LinkedHashMap<>();
  private final Map<String, TensorSpec> owners = new HashMap<>(); // of columns
  private final Map<String, Column> columns = new HashMap<>();
  private final Map<String, TensorSpec> outputs = new LinkedHashMap<>();
  private final Map<String, Answer> answers = new HashMap<>();

  Codec(Signature signature, String name, String version, boolean alwaysRaw) {
    this.signature = signature;
    this.name = name;
    this.version = version;
    this.alwaysRaw = alwaysRaw;
    for (TensorSpec spec : signature.inputs()) {
      blocks.put(spec.name(), spec);
      for (Column c : spec.columns()) {
        owners.put(c.name(), spec);
        columns.put(c.name(), c);
      }
    }
    for (TensorSpec spec : signature.outputs()) {
      outputs.put(spec.name(), spec);
      answers.put(spec.name(), new Answer(spec));
    }
  }

  /**
   * A request ready to run, and how its answer is to be written.
   *
   * @param names the outputs asked for; empty asks for all
   * @param codes the outputs asked for as codes
   */
  record Decoded(Map<String, Tensor> feeds, List<String> names, boolean typed, Set<String> codes) {}

  // -------------------------------------------------- in

  /** Turns a request into feeds; InputError lists the problems, UnsupportedError names what is not offered. */
  Decoded decode(ModelInferRequest request) {
    refuse(request.getParametersMap(), SEQUENCE);
    List<InferInputTensor> tensors = request.getInputsList();
    List<ByteString> raws = request.getRawInputContentsList();
    if (!raws.isEmpty() && raws.size() != tensors.size()) {
      throw Wire.input(raws.size() + " raw_input_contents for " + tensors.size() + " inputs; there must be one per input, in their order");
    }
    Map<String, Tensor> given = new LinkedHashMap<>();
    List<String> problems = new ArrayList<>();
    for (int i = 0; i < tensors.size() && problems.size() <= MAX_PROBLEMS; i++) {
      try {
        read(tensors.get(i), raws.isEmpty() ? Optional.empty() : Optional.of(raws.get(i)), given);
      } catch (MlbridgeException e) {
        if (e.kind() != Kind.INPUT) {
          throw e;
        }
        problems.add(e.getMessage());
      }
    }
    if (!problems.isEmpty()) {
      throw listed(problems);
    }
    Set<String> codes = new HashSet<>();
    List<String> names = requested(request.getOutputsList(), codes);
    return new Decoded(feeds(given), names, !tensors.isEmpty() && raws.isEmpty(), codes);
  }

  private Map<String, Tensor> feeds(Map<String, Tensor> given) {
    try {
      return Feeds.of(signature, given);
    } catch (MlbridgeException e) {
      throw e.problems().size() > MAX_PROBLEMS ? listed(e.problems()) : e;
    }
  }

  private static MlbridgeException listed(List<String> problems) {
    List<String> some = new ArrayList<>(problems.subList(0, Math.min(problems.size(), MAX_PROBLEMS)));
    if (problems.size() > MAX_PROBLEMS) {
      some.add("and " + (problems.size() - MAX_PROBLEMS) + " more");
    }
    return MlbridgeException.of(Kind.INPUT, some);
  }

  private void read(InferInputTensor tensor, Optional<ByteString> raw, Map<String, Tensor> given) {
    String where = "input " + Wire.clip(tensor.getName());
    Map<String, InferParameter> parameters = tensor.getParametersMap();
    refuse(parameters, UNSUPPORTED);
    if (raw.isPresent() && tensor.hasContents()) {
      throw Wire.input(where + ": has contents beside raw_input_contents; send one of them");
    }
    String datatype = tensor.getDatatype();
    Tensor value =
        raw.isPresent()
            ? Wire.raw(raw.get(), datatype, tensor.getShapeList(), where)
            : Contents.read(tensor.getContents(), datatype, tensor.getShapeList(), where);
    int[] missing = Contents.missing(parameters, value.size(), where);
    Tensor taken = taken(tensor.getName(), value, missing, where);
    if (given.putIfAbsent(tensor.getName(), taken) != null) {
      throw Wire.input(where + ": is sent twice");
    }
  }

  private Tensor taken(String tensor, Tensor value, int[] missing, String where) {
    boolean block = blocks.containsKey(tensor) && (!owners.containsKey(tensor) || owners.get(tensor).name().equals(tensor));
    if (!block && !owners.containsKey(tensor)) {
      throw Wire.input(where + ": there is no such input or column; the inputs are " + some(blocks.keySet()));
    }
    TensorSpec spec = block ? blocks.get(tensor) : owners.get(tensor);
    if (block && value.rank() == 0 && !spec.shape().isEmpty()) {
      throw Wire.input(where + ": shape [], expected " + spec.shape().size() + " axes");
    }
    if (!block && value.rank() != 1 && !(value.rank() == 2 && value.dim(1) == 1)) {
      throw Wire.input(where + ": " + value + ", expected the shape [-1] or [-1,1] for one column");
    }
    if (spec.categorical()) {
      Optional<Column> single =
          !block ? Optional.of(columns.get(tensor)) : spec.columns().size() == 1 ? Optional.of(spec.columns().get(0)) : Optional.empty();
      checkLevels(value, block, single, missing, where);
    } else if ((value.dtype() == DType.STRING) != (spec.dtype() == DType.STRING)) {
      throw Wire.input(where + ": " + value.dtype().oip() + ", expected " + spec.dtype().oip());
    }
    return Gaps.of(value, missing);
  }

  private static void checkLevels(Tensor value, boolean block, Optional<Column> single, int[] missing, String where) {
    if (value.dtype() == DType.STRING) {
      return;
    }
    if (block && value.dtype() == DType.INT32) {
      if (missing.length > 0) {
        throw Wire.input(where + ": codes write a missing value as -1, not by the parameter 'missing'");
      }
      return;
    }
    if (single.map(c -> !Wire.levelDatatype(c).equals(value.dtype().oip())).orElse(true)) {
      throw Wire.input(where + ": " + value.dtype().oip() + ", expected BYTES (levels)" + (block ? " or INT32 (codes)" : ""));
    }
  }

  private static void refuse(Map<String, InferParameter> parameters, List<String> names) {
    if (parameters.isEmpty()) {
      return;
    }
    for (String name : names) {
      InferParameter value = parameters.get(name);
      if (value != null && (names != SEQUENCE || says(value))) {
        throw MlbridgeException.of(Kind.UNSUPPORTED, "the parameter '" + name + "' is not supported");
      }
    }
  }

  /** Whether a parameter says anything: clients write zeros where they mean nothing. */
  private static boolean says(InferParameter value) {
    return switch (value.getParameterChoiceCase()) {
      case BOOL_PARAM -> value.getBoolParam();
      case INT64_PARAM -> value.getInt64Param() != 0;
      case UINT64_PARAM -> value.getUint64Param() != 0;
      case DOUBLE_PARAM -> value.getDoubleParam() != 0;
      case STRING_PARAM -> !value.getStringParam().isEmpty();
      case PARAMETERCHOICE_NOT_SET -> false;
    };
  }

  private List<String> requested(List<InferRequestedOutputTensor> tensors, Set<String> codes) {
    List<String> names = new ArrayList<>();
    List<String> problems = new ArrayList<>();
    for (InferRequestedOutputTensor tensor : tensors) {
      String output = tensor.getName();
      refuse(tensor.getParametersMap(), UNSUPPORTED);
      if (!outputs.containsKey(output)) {
        problems.add("there is no output " + Wire.clip(output));
      } else if (names.contains(output)) {
        problems.add("output " + Wire.clip(output) + " is asked for twice");
      } else {
        names.add(output);
        encoding(tensor, codes);
      }
      if (problems.size() > MAX_PROBLEMS) {
        break;
      }
    }
    if (!problems.isEmpty()) {
      throw listed(problems).withHint("the outputs are " + some(outputs.keySet()));
    }
    return names;
  }

  private void encoding(InferRequestedOutputTensor tensor, Set<String> codes) {
    InferParameter asked = tensor.getParametersMap().get("encoding");
    if (asked == null || asked.getStringParam().equals("values")) {
      return;
    }
    if (!asked.getStringParam().equals("codes") || !outputs.get(tensor.getName()).categorical()) {
      throw Wire.input(
          "output " + Wire.clip(tensor.getName()) + ": encoding " + Wire.clip(asked.getStringParam())
              + "; 'codes' is for categorical outputs, 'values' for all");
    }
    codes.add(tensor.getName());
  }

  private static String some(Set<String> names) {
    String shown = names.stream().limit(10).map(Wire::clip).collect(Collectors.joining(", "));
    return names.size() > 10 ? shown + " and " + (names.size() - 10) + " more" : shown;
  }

  // -------------------------------------------------- out

  /** Turns results into a message, raw or typed as the request was. */
  ModelInferResponse encode(Map<String, Tensor> results, String id, Decoded how) {
    ModelInferResponse.Builder out = ModelInferResponse.newBuilder().setModelName(name).setModelVersion(version).setId(id);
    boolean half = results.values().stream().anyMatch(t -> t.dtype() == DType.FLOAT16); // which has no typed form
    boolean typed = how.typed() && !alwaysRaw && !half;
    results.forEach((output, value) -> answers.get(output).write(value, how.codes().contains(output), typed, out));
    return out.build();
  }
}
