package dev.mlbridge.worker;

import dev.mlbridge.Call;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.pmml4s.data.Series;
import org.pmml4s.metadata.Field;
import org.pmml4s.metadata.InvalidValueTreatment;
import org.pmml4s.metadata.MiningField;
import org.pmml4s.metadata.OutputField;
import org.pmml4s.model.Model;

/**
 * One PMML model. Its input fields become blocks: continuous ones {@code features}, those with valid values
 * {@code categorical}, other strings {@code text}. Missing and invalid values are treated as the file says.
 */
final class PmmlSession implements Session {
  private final Model model;
  private final Field[] fields;
  private final Signature signature;
  private final List<Object> classes;
  private final boolean probabilities;
  private final List<Slot> slots = new ArrayList<>();

  /** Where the value of an input field comes from. */
  private record Slot(String block, int column, Field field, List<Object> levels) {}

  PmmlSession(Model model) {
    this.model = model;
    this.fields = model.inputFields();
    this.classes = model.isClassification() ? levels(model.classes()) : List.of();
    this.probabilities = !classes.isEmpty() && model.probabilitiesSupported();
    model.setOutputFields(outputFields());
    this.signature = new Signature(inputs(), outputs());
  }

  private OutputField[] outputFields() {
    List<OutputField> out = new ArrayList<>();
    if (model.hasTarget()) {
      out.add(OutputField.predictedValue(model.targetField()));
    } else {
      out.add(OutputField.predictedValue(model));
    }
    if (probabilities) {
      for (Object value : model.classes()) {
        out.add(OutputField.probability(value));
      }
    }
    return out.toArray(OutputField[]::new);
  }

  private List<TensorSpec> inputs() {
    Map<String, List<Column>> blocks = new LinkedHashMap<>();
    for (String kind : List.of("features", "categorical", "text")) {
      blocks.put(kind, new ArrayList<>());
    }
    for (Field field : fields) {
      List<Object> levels = field.isContinuous() ? List.of() : levels(field.validValues());
      String block = !levels.isEmpty() ? "categorical" : field.isString() ? "text" : "features";
      List<Column> columns = blocks.get(block);
      slots.add(new Slot(block, columns.size(), field, levels));
      columns.add(column(field, levels));
    }
    List<TensorSpec> out = new ArrayList<>();
    blocks.forEach(
        (name, columns) -> {
          if (!columns.isEmpty()) {
            DType dtype =
                switch (name) {
                  case "categorical" -> DType.INT32;
                  case "text" -> DType.STRING;
                  default -> DType.FLOAT64;
                };
            out.add(TensorSpec.block(name, dtype, columns).allowingMissing());
          }
        });
    return out;
  }

  private Column column(Field field, List<Object> levels) {
    if (levels.isEmpty()) {
      return Column.of(field.name());
    }
    Column plain = Column.ofLevels(field.name(), levels);
    scala.Option<MiningField> mining = model.miningSchema().get(field.name());
    boolean answers =
        mining.isDefined() && !mining.get().invalidValueTreatment().equals(InvalidValueTreatment.returnInvalid());
    return answers ? plain.keepingUnknown() : plain;
  }

  /** Levels are all text, all integers or all booleans. */
  private static List<Object> levels(Object[] values) {
    List<Object> out = new ArrayList<>();
    boolean whole = Arrays.stream(values).allMatch(PmmlSession::isWhole);
    boolean logical = Arrays.stream(values).allMatch(Boolean.class::isInstance);
    for (Object v : values) {
      out.add(logical ? v : whole ? (Object) ((Number) v).longValue() : String.valueOf(v));
    }
    return out;
  }

  private static boolean isWhole(Object v) {
    return v instanceof Number n && n.doubleValue() == Math.rint(n.doubleValue());
  }

  private List<TensorSpec> outputs() {
    if (!classes.isEmpty()) {
      List<TensorSpec> out = new ArrayList<>();
      out.add(
          TensorSpec.of("label", DType.INT32, Dim.ROWS)
              .withColumns(List.of(Column.ofLevels("label", classes)))
              .allowingMissing());
      if (probabilities) {
        List<Column> names = classes.stream().map(c -> Column.of(Column.levelText(c))).toList();
        out.add(TensorSpec.block("probabilities", DType.FLOAT64, names).allowingMissing());
      }
      return out;
    }
    if (model.isClustering()) {
      return List.of(TensorSpec.of("cluster", DType.STRING, Dim.ROWS).allowingMissing());
    }
    return List.of(TensorSpec.of("prediction", DType.FLOAT64, Dim.ROWS).allowingMissing());
  }

  @Override
  public Signature signature() {
    return signature;
  }

  @Override
  public int maxConcurrency() {
    return Integer.MAX_VALUE; // scoring keeps nothing
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    int rows = (int) feeds.get(signature.inputs().get(0).name()).dim(0);
    Answers answers = new Answers(rows);
    for (int i = 0; i < rows; i++) {
      if ((i & 255) == 0) {
        call.check();
      }
      Object[] values = new Object[fields.length];
      for (int j = 0; j < values.length; j++) {
        values[j] = value(slots.get(j), feeds, i).orElse(null);
      }
      answers.take(i, model.predict(Series.fromArray(values, model.inputSchema())));
    }
    return answers.tensors();
  }

  private static Optional<Object> value(Slot slot, Map<String, Tensor> feeds, int row) {
    Tensor block = feeds.get(slot.block());
    int at = row * (int) block.dim(1) + slot.column();
    switch (slot.block()) {
      case "text":
        return Optional.ofNullable(block.strings()[at]);
      case "categorical":
        int code = block.ints().get(at);
        if (code < 0) {
          return Optional.empty();
        }
        // a level the file does not list: any value outside the list will do, the file says what follows
        return Optional.of(code < slot.levels().size() ? slot.field().validValues()[code] : "\uFFFFunknown");
      default:
        double number = block.doubles().get(at);
        if (Double.isNaN(number)) {
          return Optional.empty();
        }
        boolean whole = slot.field().dataType() == org.pmml4s.common.DataType.INTEGER() && isWhole(number);
        return Optional.of(whole ? (Object) (long) number : (Object) number);
    }
  }

  /** Collects the answers row by row. */
  private final class Answers {
    private final int rows;
    private final int[] label;
    private final double[] scores;
    private final String[] text;

    Answers(int rows) {
      this.rows = rows;
      this.label = new int[classes.isEmpty() ? 0 : rows];
      this.scores = new double[classes.isEmpty() ? rows : probabilities ? rows * classes.size() : 0];
      this.text = new String[model.isClustering() ? rows : 0];
    }

    void take(int i, Series got) {
      Optional<Object> value = at(got, 0);
      if (!classes.isEmpty()) {
        label[i] = value.map(this::code).orElse(-1);
        for (int k = 0; probabilities && k < classes.size(); k++) {
          scores[i * classes.size() + k] = at(got, 1 + k).map(Answers::number).orElse(Double.NaN);
        }
      } else if (model.isClustering()) {
        text[i] = value.map(String::valueOf).orElse(null);
      } else {
        scores[i] = value.map(Answers::number).orElse(Double.NaN);
      }
    }

    private int code(Object value) {
      int found = classes.indexOf(levels(new Object[] {value}).get(0));
      return found >= 0 ? found : classes.indexOf(String.valueOf(value));
    }

    private static double number(Object value) {
      if (value instanceof Number n) {
        return n.doubleValue();
      }
      throw MlbridgeException.of(MlbridgeException.Kind.INFERENCE, "the model answered " + value + ", not a number");
    }

    private static Optional<Object> at(Series got, int index) {
      return got.isNullAt(index) || got.isMissingAt(index) ? Optional.empty() : Optional.of(got.get(index));
    }

    Map<String, Tensor> tensors() {
      Map<String, Tensor> out = new LinkedHashMap<>();
      if (!classes.isEmpty()) {
        out.put("label", Tensor.of(label, rows));
        if (probabilities) {
          out.put("probabilities", Tensor.of(scores, rows, classes.size()));
        }
      } else if (model.isClustering()) {
        out.put("cluster", Tensor.ofStrings(text, rows));
      } else {
        out.put("prediction", Tensor.of(scores, rows));
      }
      return out;
    }
  }
}
