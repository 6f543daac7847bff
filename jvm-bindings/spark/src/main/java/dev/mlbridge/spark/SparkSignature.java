package dev.mlbridge.spark;

import dev.mlbridge.Call;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.spark.SparkException;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.classification.ClassificationModel;
import org.apache.spark.ml.classification.OneVsRestModel;
import org.apache.spark.ml.feature.IndexToString;
import org.apache.spark.ml.feature.StringIndexerModel;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.NumericType;
import org.apache.spark.sql.types.StructType;

/** The signature of a fitted Spark model: raw columns and their types from a sample, rules by trying them. */
final class SparkSignature {
  private SparkSignature() {}

  static Signature infer(Transformer model, Dataset<Row> sample) {
    List<Transformer> stages = Stages.flat(model);
    Optional<Transformer> predictor = Stages.predictor(model);
    Set<String> answers = predictor.map(Stages::makes).orElseGet(() -> Stages.lastMade(model));
    Row first =
        sample.limit(1).collectAsList().stream()
            .findFirst()
            .orElseThrow(() -> MlbridgeException.of(Kind.INPUT, "the sample has no rows"));
    List<TensorSpec> inputs = inputs(stages, answers, sample.schema(), first);
    Dataset<Row> made = Stages.withoutLabels(model, Set.of(sample.schema().fieldNames())).transform(sample.limit(1));
    Signature plain = new Signature(inputs, outputs(stages, predictor, answers, made));
    return withRules(model, plain, sample);
  }

  // ---------------------------------------------------------------- inputs

  private static List<TensorSpec> inputs(List<Transformer> stages, Set<String> answers, StructType schema, Row first) {
    Set<String> wanted = new LinkedHashSet<>(answers);
    Map<String, String[]> labels = new LinkedHashMap<>();
    for (int i = stages.size() - 1; i >= 0; i--) {
      Transformer stage = stages.get(i);
      Set<String> makes = Stages.makes(stage);
      if (makes.stream().noneMatch(wanted::contains)) {
        continue;
      }
      wanted.removeAll(makes);
      List<String> reads = List.copyOf(Stages.reads(stage));
      wanted.addAll(reads);
      if (stage instanceof StringIndexerModel indexer) {
        for (int k = 0; k < reads.size(); k++) {
          labels.put(reads.get(k), indexer.labelsArray()[k]);
        }
      }
    }
    Set<String> absent = new LinkedHashSet<>(wanted);
    absent.removeAll(Set.of(schema.fieldNames()));
    if (!absent.isEmpty()) {
      throw MlbridgeException.of(Kind.SIGNATURE, "the sample lacks the columns " + absent)
          .withHint("pass rows as they come before the pipeline");
    }
    return blocks(schema, wanted, labels, first);
  }

  private static List<TensorSpec> blocks(
      StructType schema, Set<String> wanted, Map<String, String[]> labels, Row first) {
    List<TensorSpec> out = new ArrayList<>();
    List<Column> numbers = new ArrayList<>();
    List<Column> coded = new ArrayList<>();
    List<Column> texts = new ArrayList<>();
    for (String name : schema.fieldNames()) {
      if (!wanted.contains(name)) {
        continue;
      }
      DataType type = schema.apply(name).dataType();
      boolean text = type.typeName().equals("string");
      boolean whole = Set.of("byte", "short", "integer", "long").contains(type.typeName());
      if (type.typeName().equals("vector") || first.getAs(name) instanceof Vector) {
        out.add(TensorSpec.of(name, DType.FLOAT64, Dim.ROWS, Dim.of(first.<Vector>getAs(name).size())));
      } else if (labels.containsKey(name) && (text || whole)) {
        List<Object> levels = new ArrayList<>();
        for (String label : labels.get(name)) {
          levels.add(whole ? (Object) Long.parseLong(label) : label);
        }
        coded.add(Column.ofLevels(name, levels));
      } else if (text) {
        texts.add(Column.of(name));
      } else if (type instanceof NumericType || type.typeName().equals("boolean")) {
        numbers.add(Column.of(name));
      } else if (type.typeName().equals("date") || type.typeName().equals("timestamp")) {
        numbers.add(Column.of(name).withUnit(type.typeName()));
      } else {
        throw MlbridgeException.of(Kind.SIGNATURE, "column '" + name + "' is of type " + type.typeName() + ", which has no form here");
      }
    }
    if (!numbers.isEmpty()) {
      out.add(TensorSpec.block("features", DType.FLOAT64, numbers));
    }
    if (!coded.isEmpty()) {
      out.add(TensorSpec.block("categorical", DType.INT32, coded));
    }
    if (!texts.isEmpty()) {
      out.add(TensorSpec.block("text", DType.STRING, texts));
    }
    return out;
  }

  // ---------------------------------------------------------------- outputs

  private static List<TensorSpec> outputs(
      List<Transformer> stages, Optional<Transformer> predictor, Set<String> answers, Dataset<Row> made) {
    Row row =
        made.collectAsList().stream()
            .findFirst()
            .orElseThrow(() -> MlbridgeException.of(Kind.INPUT, "the model drops the first row of the sample"));
    if (predictor.isEmpty()) {
      return List.of(transformed(answers, row));
    }
    Transformer last = predictor.get();
    if (last instanceof ClassificationModel<?, ?> || last instanceof OneVsRestModel) {
      return classifier(stages, last, row);
    }
    if (last.getClass().getPackageName().endsWith(".clustering")) {
      return List.of(TensorSpec.of("cluster", DType.INT64, Dim.ROWS));
    }
    return List.of(TensorSpec.of("prediction", DType.FLOAT64, Dim.ROWS).allowingMissing());
  }

  private static TensorSpec transformed(Set<String> columns, Row row) {
    int width = 0;
    boolean flat = columns.size() == 1;
    for (String c : columns) {
      Object value = row.getAs(c);
      if (value instanceof String) {
        return TensorSpec.of("transformed", DType.STRING, Dim.ROWS).allowingMissing();
      }
      flat &= !(value instanceof Vector);
      width += value instanceof Vector v ? v.size() : 1;
    }
    return flat
        ? TensorSpec.of("transformed", DType.FLOAT64, Dim.ROWS).allowingMissing()
        : TensorSpec.of("transformed", DType.FLOAT64, Dim.ROWS, Dim.of(width)).allowingMissing();
  }

  private static List<TensorSpec> classifier(List<Transformer> stages, Transformer last, Row row) {
    Optional<String> scores = Stages.column(last, "probabilityCol");
    Optional<String> raw = Stages.column(last, "rawPredictionCol");
    int classes =
        last instanceof ClassificationModel<?, ?> c
            ? c.numClasses()
            : row.<Vector>getAs(raw.orElseThrow()).size();
    List<Object> levels = new ArrayList<>(restored(stages, last).map(List::<Object>of).orElse(List.of()));
    if (new HashSet<>(levels).size() < classes) {
      levels = new ArrayList<>(IntStream.range(0, classes).mapToObj(i -> (Object) (long) i).toList());
    }
    List<Object> known = levels.subList(0, classes);
    TensorSpec label =
        TensorSpec.of("label", DType.INT32, Dim.ROWS)
            .withColumns(List.of(Column.ofLevels("label", known)))
            .allowingMissing();
    List<Column> names = known.stream().map(v -> Column.of(Column.levelText(v))).toList();
    if (scores.isEmpty() && classes == 2) {
      return List.of(label, TensorSpec.of("decision", DType.FLOAT64, Dim.ROWS).allowingMissing());
    }
    String name = scores.isPresent() ? "probabilities" : "decision";
    return List.of(label, TensorSpec.block(name, DType.FLOAT64, names).allowingMissing());
  }

  private static Optional<Object[]> restored(List<Transformer> stages, Transformer last) {
    Optional<String> prediction = Stages.column(last, "predictionCol");
    for (Transformer stage : stages) {
      if (stage instanceof IndexToString back && Stages.column(back, "inputCol").equals(prediction)) {
        return back.isDefined(back.labels()) && back.getLabels().length > 0
            ? Optional.of((Object[]) back.getLabels())
            : Optional.empty();
      }
    }
    return Optional.empty();
  }

  // ---------------------------------------------------------------- rules, by trying

  /** Allows missing values where Spark answers one, block by block, and unknown levels where it answers one. */
  private static Signature withRules(Transformer model, Signature signature, Dataset<Row> sample) {
    Signature open =
        new Signature(
            signature.inputs().stream()
                .map(s -> s.categorical() ? s.withColumns(s.columns().stream().map(Column::keepingUnknown).toList()) : s)
                .map(TensorSpec::allowingMissing)
                .toList(),
            signature.outputs());
    SparkModelSession session = new SparkModelSession(sample.sparkSession(), model, open);
    Map<String, Tensor> one = feeds(open, sample.limit(1).collectAsList());
    List<TensorSpec> inputs = new ArrayList<>();
    for (TensorSpec spec : signature.inputs()) {
      List<Column> columns = new ArrayList<>();
      boolean missing = true;
      for (int i = 0; i < Math.max(1, spec.columns().size()); i++) {
        missing &= answers(session, one, spec, i, true);
        if (spec.categorical()) {
          Column c = spec.columns().get(i);
          columns.add(answers(session, one, spec, i, false) ? c.keepingUnknown() : c);
        }
      }
      TensorSpec known = spec.categorical() ? spec.withColumns(columns) : spec;
      inputs.add(missing ? known.allowingMissing() : known);
    }
    return new Signature(inputs, signature.outputs());
  }

  private static boolean answers(
      SparkModelSession session, Map<String, Tensor> one, TensorSpec spec, int column, boolean missing) {
    Map<String, Tensor> feeds = new LinkedHashMap<>(one);
    feeds.put(spec.name(), changed(one.get(spec.name()), spec, column, missing));
    try {
      session.run(feeds, Call.all());
      return true;
    } catch (RuntimeException e) {
      return false;
    } catch (Exception e) { // Spark throws checked ones through Scala
      if (e instanceof SparkException) {
        return false;
      }
      throw e;
    }
  }

  private static Tensor changed(Tensor value, TensorSpec spec, int column, boolean missing) {
    if (spec.dtype() == DType.STRING) {
      String[] out = value.strings().clone();
      out[column] = null;
      return Tensor.ofStrings(out, value.shape());
    }
    if (spec.dtype() == DType.INT32) {
      int[] out = value.toInts();
      out[column] = missing ? -1 : spec.columns().get(column).categories().orElseThrow().size();
      return Tensor.of(out, value.shape());
    }
    double[] out = value.toDoubles();
    out[column] = Double.NaN;
    return Tensor.of(out, value.shape());
  }

  // ---------------------------------------------------------------- rows to tensors

  /** Gathers the blocks of a signature from rows that hold its columns by name. */
  static Map<String, Tensor> feeds(Signature signature, List<Row> rows) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (TensorSpec spec : signature.inputs()) {
      out.put(spec.name(), block(spec, rows));
    }
    return out;
  }

  private static Tensor block(TensorSpec spec, List<Row> rows) {
    int n = rows.size();
    if (spec.columns().isEmpty() && spec.shape().size() > 1) {
      int width = (int) ((Dim.Size) spec.shape().get(1)).value();
      double[] out = new double[n * width];
      for (int i = 0; i < n; i++) {
        System.arraycopy(rows.get(i).<Vector>getAs(spec.name()).toArray(), 0, out, i * width, width);
      }
      return Tensor.of(out, n, width);
    }
    List<Column> columns = spec.columns().isEmpty() ? List.of(Column.of(spec.name())) : spec.columns();
    int width = columns.size();
    boolean text = spec.dtype() == DType.STRING;
    String[] texts = new String[text ? n * width : 0];
    int[] codes = new int[spec.categorical() ? n * width : 0];
    double[] numbers = new double[text || spec.categorical() ? 0 : n * width]; // of any dtype: Feeds narrows them
    for (int i = 0; i < n; i++) {
      for (int k = 0; k < width; k++) {
        Column c = columns.get(k);
        Optional<Object> value = Optional.ofNullable(rows.get(i).getAs(c.name()));
        if (text) {
          texts[i * width + k] = value.map(String::valueOf).orElse(null);
        } else if (spec.categorical()) {
          codes[i * width + k] = value.map(v -> code(c, v)).orElse(-1);
        } else {
          numbers[i * width + k] = value.map(v -> number(c, v)).orElse(Double.NaN);
        }
      }
    }
    if (text) {
      return Tensor.ofStrings(texts, n, width);
    }
    return spec.categorical() ? Tensor.of(codes, n, width) : Tensor.of(numbers, n, width);
  }

  private static int code(Column column, Object value) {
    List<Object> levels = column.categories().orElseThrow();
    Object level = value instanceof Number n ? (Object) n.longValue() : value;
    int found = levels.indexOf(level);
    if (found < 0 && !column.keepUnknown()) {
      throw MlbridgeException.of(
          Kind.INPUT, "column '" + column.name() + "': unknown level '" + value + "'; known are " + levels);
    }
    return found >= 0 ? found : levels.size();
  }

  private static double number(Column column, Object value) {
    if (value instanceof Boolean b) {
      return b ? 1 : 0;
    }
    if (value instanceof Number n) {
      return n.doubleValue();
    }
    String unit = column.unit().orElse("");
    if (unit.equals("date") && value instanceof java.sql.Date d) {
      return d.toLocalDate().toEpochDay();
    }
    if (unit.equals("date") && value instanceof LocalDate d) {
      return d.toEpochDay();
    }
    if (unit.equals("timestamp") && value instanceof java.sql.Timestamp t) {
      return seconds(t.toInstant());
    }
    if (unit.equals("timestamp") && value instanceof Instant t) {
      return seconds(t);
    }
    String want = unit.isEmpty() ? "a number" : "a " + unit;
    throw MlbridgeException.of(
            Kind.INPUT, "column '" + column.name() + "' holds a " + value.getClass().getName() + ", expected " + want)
        .withHint(value instanceof LocalDateTime ? "a timestamp without time zone is no moment: cast it to TIMESTAMP" : "cast the column");
  }

  /** Spark counts whole microseconds: divided once, as Python does. */
  private static double seconds(Instant t) {
    return (t.getEpochSecond() * 1_000_000L + t.getNano() / 1000) / 1e6;
  }
}
