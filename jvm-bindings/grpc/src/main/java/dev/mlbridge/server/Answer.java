package dev.mlbridge.server;

import dev.mlbridge.Column;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.grpc.inference.ModelInferResponse.InferOutputTensor;
import dev.mlbridge.wire.Contents;
import dev.mlbridge.wire.Wire;
import java.util.ArrayList;
import java.util.List;

/** How one output is written: levels instead of codes, missing elements beside the tensor. */
final class Answer {
  private final TensorSpec spec;
  private final String datatype;

  Answer(TensorSpec spec) {
    this.spec = spec;
    this.datatype = Wire.datatype(spec);
  }

  void write(Tensor value, boolean asCodes, boolean typed, ModelInferResponse.Builder out) {
    InferOutputTensor.Builder tensor = InferOutputTensor.newBuilder().setName(spec.name());
    Tensor shown = value;
    if (spec.categorical() && !asCodes) {
      List<Integer> gone = new ArrayList<>(0);
      shown = levels(value, gone);
      missing(tensor, gone);
    } else {
      Wire.missing(value).ifPresent(list -> tensor.putParameters(Contents.MISSING, Contents.text(list)));
    }
    tensor.setDatatype(asCodes ? "INT32" : datatype);
    for (int i = 0; i < shown.rank(); i++) {
      tensor.addShape(shown.dim(i));
    }
    if (typed) {
      tensor.setContents(Contents.write(shown));
    } else {
      out.addRawOutputContents(Wire.pack(shown));
    }
    out.addOutputs(tensor);
  }

  private static void missing(InferOutputTensor.Builder tensor, List<Integer> gone) {
    if (!gone.isEmpty()) {
      StringBuilder list = new StringBuilder();
      gone.forEach(i -> list.append(list.length() > 0 ? "," : "").append(i));
      tensor.putParameters(Contents.MISSING, Contents.text(list));
    }
  }

  private Tensor levels(Tensor codes, List<Integer> gone) {
    int width = spec.columns().size();
    Object[] found = new Object[codes.size()];
    for (int i = 0; i < found.length; i++) {
      List<Object> levels = spec.columns().get(i % width).categories().orElseThrow();
      int code = codes.ints().get(i);
      if (code >= 0 && code < levels.size()) {
        found[i] = levels.get(code);
      } else {
        gone.add(i);
      }
    }
    if (!gone.isEmpty() && !spec.allowMissing() && !spec.columns().stream().allMatch(Column::keepUnknown)) {
      throw MlbridgeException.of(
          Kind.INFERENCE, "output '" + spec.name() + "': a code outside its levels, and the signature says none is missing");
    }
    return switch (datatype) {
      case "INT64" -> numbers(found, codes.shape());
      case "BOOL" -> truths(found, codes.shape());
      default -> texts(found, codes.shape());
    };
  }

  private static Tensor numbers(Object[] found, long[] shape) {
    long[] out = new long[found.length];
    for (int i = 0; i < out.length; i++) {
      out[i] = found[i] == null ? 0 : (Long) found[i];
    }
    return Tensor.of(out, shape);
  }

  private static Tensor truths(Object[] found, long[] shape) {
    boolean[] out = new boolean[found.length];
    for (int i = 0; i < out.length; i++) {
      out[i] = found[i] != null && (Boolean) found[i];
    }
    return Tensor.of(out, shape);
  }

  private static Tensor texts(Object[] found, long[] shape) {
    String[] out = new String[found.length];
    for (int i = 0; i < out.length; i++) {
      out[i] = found[i] == null ? "" : Column.levelText(found[i]);
    }
    return Tensor.ofStrings(out, shape);
  }
}
