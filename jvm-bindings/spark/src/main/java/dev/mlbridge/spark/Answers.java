package dev.mlbridge.spark;

import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Row;

/**
 * Spark's columns to the outputs of a signature: the last predictor's under mlbridge's names, the last stage's as
 * {@code transformed}, any other by Spark's name. A label is the index that Spark predicts.
 */
final class Answers {
  private final Optional<Transformer> predictor;
  private final List<String> last;

  Answers(Transformer model) {
    this.predictor = Stages.predictor(model);
    this.last = List.copyOf(Stages.lastMade(model));
  }

  /** Returns the Spark columns an output is made of. */
  List<String> columns(TensorSpec spec) {
    if (predictor.isPresent()) {
      switch (spec.name()) {
        case "label", "prediction", "cluster":
          return of("predictionCol", spec);
        case "probabilities":
          return of("probabilityCol", spec);
        case "decision":
          return of("rawPredictionCol", spec);
        default:
          return List.of(spec.name());
      }
    }
    return spec.name().equals("transformed") ? last : List.of(spec.name());
  }

  private List<String> of(String param, TensorSpec spec) {
    return predictor
        .flatMap(p -> Stages.column(p, param))
        .map(List::of)
        .orElseThrow(
            () -> MlbridgeException.of(Kind.SIGNATURE, "the last predictor makes no column for '" + spec.name() + "'"));
  }

  /** Gathers an output from the rows that Spark answered; the others are missing. */
  Tensor tensor(TensorSpec spec, List<Row> got, int rows) {
    List<String> columns = columns(spec);
    if (spec.dtype() == DType.STRING) {
      String[] out = new String[rows];
      each(got, columns.get(0), (row, value) -> out[row] = String.valueOf(value));
      return Tensor.ofStrings(out, rows);
    }
    if (spec.categorical()) {
      return codes(spec, got, rows, columns.get(0));
    }
    if (spec.dtype() == DType.INT64) {
      long[] out = new long[rows];
      Arrays.fill(out, -1);
      each(got, columns.get(0), (row, value) -> out[row] = ((Number) value).longValue());
      return Tensor.of(out, rows);
    }
    return numbers(spec, got, rows, columns);
  }

  private static Tensor codes(TensorSpec spec, List<Row> got, int rows, String column) {
    List<Object> levels = spec.columns().get(0).categories().orElseThrow();
    int[] out = new int[rows];
    Arrays.fill(out, -1);
    each(
        got,
        column,
        (row, value) -> out[row] = value instanceof Number n ? n.intValue() : levels.indexOf(String.valueOf(value)));
    return Tensor.of(out, rows);
  }

  private static Tensor numbers(TensorSpec spec, List<Row> got, int rows, List<String> columns) {
    boolean flat = spec.shape().size() == 1;
    List<double[]> values = new ArrayList<>(java.util.Collections.nCopies(rows, new double[0]));
    for (String column : columns) {
      each(got, column, (row, value) -> values.set(row, joined(values.get(row), doubles(value))));
    }
    int width = flat ? 1 : (int) ((dev.mlbridge.Dim.Size) spec.shape().get(1)).value();
    double[] out = new double[rows * width];
    Arrays.fill(out, Double.NaN);
    for (int i = 0; i < rows; i++) {
      double[] row = values.get(i);
      if (row.length == 2 && flat && spec.name().equals("decision")) {
        out[i] = row[1]; // the margin of the second class
      } else if (row.length > 0) {
        System.arraycopy(row, 0, out, i * width, width);
      }
    }
    return flat ? Tensor.of(out, rows) : Tensor.of(out, rows, width);
  }

  private static double[] joined(double[] a, double[] b) {
    double[] out = Arrays.copyOf(a, a.length + b.length);
    System.arraycopy(b, 0, out, a.length, b.length);
    return out;
  }

  private static double[] doubles(Object value) {
    if (value instanceof Vector v) {
      return v.toArray();
    }
    if (value instanceof Number n) {
      return new double[] {n.doubleValue()};
    }
    if (value instanceof Boolean b) {
      return new double[] {b ? 1 : 0};
    }
    throw MlbridgeException.of(Kind.INFERENCE, "Spark answered " + value.getClass().getName() + ", not numbers");
  }

  private interface Taker {
    void take(int row, Object value);
  }

  private static void each(List<Row> got, String column, Taker taker) {
    for (Row row : got) {
      int at = row.fieldIndex(column);
      if (!row.isNullAt(at)) {
        taker.take((int) row.getLong(row.fieldIndex(SparkModelSession.ROW)), row.get(at));
      }
    }
  }
}
