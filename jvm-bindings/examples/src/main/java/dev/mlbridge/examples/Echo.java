package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Answers each input under the name {@code <input>_out}; its dtypes come from the parameter {@code dtypes}. */
public final class Echo implements Session {
  private final Signature signature;

  /** Makes an echo of tensors of rank 1 or 2, missing values included. */
  public Echo(Map<String, String> options) {
    List<DType> dtypes =
        options.getOrDefault("dtypes", "float64").lines().map(t -> DType.of(t.toLowerCase(Locale.ROOT)).orElseThrow()).toList();
    signature =
        new Signature(
            dtypes.stream().map(d -> spec(d, d.text())).toList(), dtypes.stream().map(d -> spec(d, d.text() + "_out")).toList());
  }

  private static TensorSpec spec(DType dtype, String name) {
    return TensorSpec.of(name, dtype, Dim.ROWS, new Dim.Symbol("k")).allowingMissing();
  }

  @Override
  public Signature signature() {
    return signature;
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    feeds.forEach((name, tensor) -> out.put(name + "_out", tensor));
    return out;
  }

  @Override
  public int maxConcurrency() {
    return Integer.MAX_VALUE;
  }
}
