package dev.mlbridge.spark;

import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.time.Instant;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.linalg.Vectors;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * Blocks of a signature to the raw columns of a DataFrame: numbers as double, categories by their levels, text as it
 * is, an input without columns as a vector.
 */
final class Frames {
  private static final String UNKNOWN = "\uFFFFunknown";

  private final Signature signature;
  private final List<Source> sources = new ArrayList<>();
  private final StructType schema;

  private record Source(String tensor, DType dtype, int column, boolean vector, List<Object> levels, Object unknown, String unit) {}

  Frames(Signature signature) {
    this.signature = signature;
    List<StructField> fields = new ArrayList<>();
    for (TensorSpec spec : signature.inputs()) {
      if (spec.columns().isEmpty()) {
        sources.add(new Source(spec.name(), spec.dtype(), 0, spec.shape().size() > 1, List.of(), UNKNOWN, ""));
        DataType type = spec.shape().size() > 1 ? SQLDataTypes.VectorType() : type(spec.dtype(), List.of());
        fields.add(DataTypes.createStructField(column(spec), type, true));
      }
      for (int i = 0; i < spec.columns().size(); i++) {
        Column c = spec.columns().get(i);
        List<Object> levels = c.categories().orElse(List.of());
        sources.add(new Source(spec.name(), spec.dtype(), i, false, levels, unknown(levels), c.unit().orElse("")));
        fields.add(DataTypes.createStructField(c.name(), type(c, spec.dtype(), levels), true));
      }
    }
    fields.add(DataTypes.createStructField(SparkModelSession.ROW, DataTypes.LongType, false));
    this.schema = DataTypes.createStructType(fields);
  }

  /** A vector's tensor is called as its column, or, where another input has that name, with a suffix. */
  private String column(TensorSpec spec) {
    String name = spec.name();
    String bare = name.endsWith("_vector") ? name.substring(0, name.length() - "_vector".length()) : name;
    boolean taken =
        signature.inputs().stream()
            .anyMatch(s -> s.name().equals(bare) || s.columns().stream().anyMatch(c -> c.name().equals(bare)));
    return bare.equals(name) || !taken ? name : bare;
  }

  private static Object unknown(List<Object> levels) {
    if (!levels.isEmpty() && levels.get(0) instanceof Long) {
      long free = Long.MIN_VALUE;
      while (levels.contains(free)) {
        free++;
      }
      return free;
    }
    return UNKNOWN;
  }

  private static DataType type(Column column, DType dtype, List<Object> levels) {
    return switch (column.unit().orElse("")) {
      case "date" -> DataTypes.DateType;
      case "timestamp" -> DataTypes.TimestampType;
      default -> type(dtype, levels);
    };
  }

  private static DataType type(DType dtype, List<Object> levels) {
    if (!levels.isEmpty()) {
      Object first = levels.get(0);
      return first instanceof Long ? DataTypes.LongType : first instanceof Boolean ? DataTypes.BooleanType : DataTypes.StringType;
    }
    return dtype == DType.STRING || dtype == DType.INT32 ? DataTypes.StringType : DataTypes.DoubleType;
  }

  StructType schema() {
    return schema;
  }

  int rows(Map<String, Tensor> feeds) {
    return (int) feeds.get(signature.inputs().get(0).name()).dim(0);
  }

  List<Row> table(Map<String, Tensor> feeds) {
    int rows = rows(feeds);
    List<Row> out = new ArrayList<>(rows);
    for (int i = 0; i < rows; i++) {
      Object[] values = new Object[sources.size() + 1];
      for (int j = 0; j < sources.size(); j++) {
        values[j] = value(sources.get(j), feeds.get(sources.get(j).tensor()), i).orElse(null);
      }
      values[sources.size()] = (long) i;
      out.add(RowFactory.create(values));
    }
    return out;
  }

  private static Optional<Object> value(Source source, Tensor block, int row) {
    int width = block.rank() > 1 ? (int) block.dim(1) : 1;
    if (source.vector()) {
      double[] values = new double[width];
      for (int k = 0; k < width; k++) {
        values[k] = block.number(row * width + k);
      }
      return Optional.of(Vectors.dense(values));
    }
    int at = row * width + source.column();
    if (source.dtype() == DType.STRING) {
      return Optional.ofNullable(block.strings()[at]);
    }
    if (source.dtype() == DType.INT32) {
      int code = block.ints().get(at);
      return code < 0
          ? Optional.empty()
          : Optional.of(code < source.levels().size() ? source.levels().get(code) : source.unknown());
    }
    if (source.unit().equals("date") || source.unit().equals("timestamp")) {
      return moment(source.unit(), block.number(at));
    }
    return Optional.of(block.number(at)); // NaN stays NaN: null is another thing to Spark
  }

  /** Spark's dates and timestamps know no NaN: it is null. */
  private static Optional<Object> moment(String unit, double value) {
    if (Double.isNaN(value)) {
      return Optional.empty();
    }
    if (unit.equals("date")) {
      return Optional.of(java.sql.Date.valueOf(LocalDate.ofEpochDay((long) Math.floor(value))));
    }
    long micros = Math.round(value * 1e6);
    return Optional.of(
        java.sql.Timestamp.from(
            Instant.ofEpochSecond(Math.floorDiv(micros, 1_000_000L), Math.floorMod(micros, 1_000_000L) * 1000)));
  }
}
