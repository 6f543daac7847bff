package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A logistic model over two numbers and a category: how a user's own Java model looks. */
public final class Churn implements Session {
  private static final double[] PLAN = {0.5, -0.25, 1.0};
  private static final Signature SIGNATURE =
      new Signature(
          List.of(
              TensorSpec.block("features", DType.FLOAT64, List.of(Column.of("age"), Column.of("calls")))
                  .allowingMissing(),
              TensorSpec.block(
                  "categorical", DType.INT32, List.of(Column.ofLevels("plan", List.of("basic", "plus", "pro"))))),
          List.of(
              TensorSpec.of("label", DType.INT32, Dim.ROWS)
                  .withColumns(List.of(Column.ofLevels("label", List.of("stays", "leaves")))),
              TensorSpec.block("probabilities", DType.FLOAT64, List.of(Column.of("stays"), Column.of("leaves")))));

  @Override
  public Signature signature() {
    return SIGNATURE;
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    Tensor features = feeds.get("features");
    Tensor plan = feeds.get("categorical");
    int rows = (int) features.dim(0);
    int[] label = new int[rows];
    double[] probabilities = new double[2 * rows];
    for (int i = 0; i < rows; i++) {
      double age = features.doubles().get(2 * i);
      double calls = features.doubles().get(2 * i + 1);
      double z = -1.0 + 0.02 * (Double.isNaN(age) ? 40 : age) + 0.3 * (Double.isNaN(calls) ? 0 : calls);
      double p = 1 / (1 + Math.exp(-(z + PLAN[plan.ints().get(i)])));
      label[i] = p > 0.5 ? 1 : 0;
      probabilities[2 * i] = 1 - p;
      probabilities[2 * i + 1] = p;
    }
    Map<String, Tensor> out = new LinkedHashMap<>();
    out.put("label", Tensor.of(label, rows));
    out.put("probabilities", Tensor.of(probabilities, rows, 2));
    return out;
  }

  @Override
  public int maxConcurrency() {
    return Integer.MAX_VALUE; // it keeps nothing between calls
  }
}
