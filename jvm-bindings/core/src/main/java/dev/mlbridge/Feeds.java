package dev.mlbridge;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The only coercion: what a caller hands over to tensors that satisfy a signature, all problems in one InputError.
 *
 * <p>A caller gives whole blocks by their names, or single columns by theirs: (rows) or (rows, 1), categories by the
 * values of their levels. Numbers widen where every value survives; nothing is rounded.
 */
public final class Feeds {
  private static final long EXACT = 1L << 53;

  private Feeds() {}

  /**
   * Returns tensors that satisfy the signature.
   *
   * @throws MlbridgeException (InputError) that lists every problem
   */
  public static Map<String, Tensor> of(Signature signature, Map<String, Tensor> given) {
    List<String> problems = new ArrayList<>();
    Map<String, Tensor> out = new LinkedHashMap<>();
    Map<String, Long> symbols = new HashMap<>();
    Set<String> unused = new LinkedHashSet<>(given.keySet());
    for (TensorSpec spec : signature.inputs()) {
      Tensor block;
      if (given.containsKey(spec.name())) {
        unused.remove(spec.name());
        block = given.get(spec.name());
      } else if (!spec.columns().isEmpty()) {
        block = assembled(spec, given, unused, problems);
      } else {
        problems.add("input '" + spec.name() + "' is absent");
        continue;
      }
      if (block != MISSING) {
        checked(spec, block, symbols, problems).ifPresent(t -> out.put(spec.name(), t));
      }
    }
    for (String name : unused) {
      problems.add("there is no input or column '" + name + "'");
    }
    if (!problems.isEmpty()) {
      throw MlbridgeException.of(MlbridgeException.Kind.INPUT, problems);
    }
    return out;
  }

  private static final Tensor MISSING = Tensor.of(new double[0], 0);

  private static Tensor assembled(
      TensorSpec spec, Map<String, Tensor> given, Set<String> unused, List<String> problems) {
    int before = problems.size();
    List<Tensor> columns = new ArrayList<>();
    for (Column c : spec.columns()) {
      unused.remove(c.name());
      if (!given.containsKey(c.name())) {
        problems.add("column '" + c.name() + "' is absent");
        continue;
      }
      Tensor t = given.get(c.name());
      if (t.rank() != 1 && !(t.rank() == 2 && t.dim(1) == 1)) {
        problems.add("column '" + c.name() + "' has " + t.rank() + " axes, expected one");
        continue;
      }
      columns.add(c.categories().isPresent() ? codes(c, t, problems) : t);
    }
    if (problems.size() > before) {
      return MISSING;
    }
    long rows = columns.get(0).dim(0);
    for (int i = 0; i < columns.size(); i++) {
      if (columns.get(i).dim(0) != rows) {
        problems.add("column '" + spec.columns().get(i).name() + "' has " + columns.get(i).dim(0) + " rows, the first has " + rows);
      }
    }
    return problems.size() > before ? MISSING : joined(spec, columns, (int) rows, problems);
  }

  private static Tensor joined(TensorSpec spec, List<Tensor> columns, int rows, List<String> problems) {
    int width = columns.size();
    long[] shape = spec.shape().size() == 1 ? new long[] {rows} : new long[] {rows, width};
    if (spec.dtype() == DType.STRING) {
      String[] out = new String[rows * width];
      for (int k = 0; k < width; k++) {
        if (columns.get(k).dtype() != DType.STRING) {
          problems.add("column '" + spec.columns().get(k).name() + "' is " + columns.get(k).dtype() + ", expected string");
          return MISSING;
        }
        for (int i = 0; i < rows; i++) {
          out[i * width + k] = columns.get(k).strings()[i];
        }
      }
      return Tensor.ofStrings(out, shape);
    }
    if (spec.dtype() == DType.INT32) {
      int[] out = new int[rows * width];
      for (int k = 0; k < width; k++) {
        for (int i = 0; i < rows; i++) {
          out[i * width + k] = (int) columns.get(k).number(i);
        }
      }
      return Tensor.of(out, shape);
    }
    double[] out = new double[rows * width];
    for (int k = 0; k < width; k++) {
      Tensor t = columns.get(k);
      if (!widens(t, spec.columns().get(k).name(), problems)) {
        return MISSING;
      }
      for (int i = 0; i < rows; i++) {
        out[i * width + k] = t.number(i);
      }
    }
    return Tensor.of(out, shape);
  }

  /** Whether every value is exact as a double. */
  private static boolean widens(Tensor t, String name, List<String> problems) {
    switch (t.dtype()) {
      case STRING, UINT64, FLOAT16, BFLOAT16:
        problems.add("'" + name + "' is " + t.dtype() + ", expected a number");
        return false;
      case INT64:
        for (int i = 0; i < t.size(); i++) {
          if (Math.abs(t.longs().get(i)) > EXACT) {
            problems.add("'" + name + "': " + t.longs().get(i) + " is not exact as float64");
            return false;
          }
        }
        return true;
      default:
        return true;
    }
  }

  private static Tensor codes(Column column, Tensor t, List<String> problems) {
    List<Object> levels = column.categories().orElseThrow();
    Map<Object, Integer> index = new HashMap<>();
    for (int i = 0; i < levels.size(); i++) {
      index.put(levels.get(i), i);
    }
    int[] out = new int[t.size()];
    Set<String> unknown = new LinkedHashSet<>();
    for (int i = 0; i < out.length; i++) {
      if (t.dtype() == DType.STRING && t.strings()[i] == null) {
        out[i] = -1;
        continue;
      }
      Object level = level(t, i, levels);
      out[i] = index.getOrDefault(level, levels.size());
      if (out[i] == levels.size() && !column.keepUnknown()) {
        unknown.add("'" + level + "'");
      }
    }
    if (!unknown.isEmpty()) {
      problems.add("column '" + column.name() + "': unknown level " + String.join(", ", unknown) + "; the model knows " + levels);
    }
    return Tensor.of(out, out.length);
  }

  private static Object level(Tensor t, int i, List<Object> levels) {
    boolean whole = !levels.isEmpty() && levels.get(0) instanceof Long;
    return switch (t.dtype()) {
      case STRING -> t.strings()[i];
      case BOOL -> t.number(i) != 0;
      case INT64 -> t.longs().get(i);
      default -> {
        double value = t.number(i);
        yield whole && value == Math.rint(value) ? (Object) (long) value : (Object) value;
      }
    };
  }

  private static java.util.Optional<Tensor> checked(
      TensorSpec spec, Tensor given, Map<String, Long> symbols, List<String> problems) {
    int before = problems.size();
    Tensor t = fitted(spec, given, problems);
    if (problems.size() > before) {
      return java.util.Optional.empty();
    }
    if (t.rank() != spec.shape().size()) {
      problems.add("input '" + spec.name() + "': " + t + ", expected " + spec);
      return java.util.Optional.empty();
    }
    for (int i = 0; i < t.rank(); i++) {
      Dim want = spec.shape().get(i);
      long size = t.dim(i);
      boolean wrong =
          want instanceof Dim.Size s && s.value() != size
              || want instanceof Dim.Symbol y && symbols.merge(y.name(), size, (a, b) -> a) != size;
      if (wrong) {
        problems.add("input '" + spec.name() + "': axis " + i + " is " + size + ", expected " + want + describe(want, symbols));
      }
    }
    valueProblems(spec, t, problems);
    return problems.size() > before ? java.util.Optional.empty() : java.util.Optional.of(t);
  }

  private static String describe(Dim want, Map<String, Long> symbols) {
    return want instanceof Dim.Symbol y ? " = " + symbols.get(y.name()) : "";
  }

  private static Tensor fitted(TensorSpec spec, Tensor t, List<String> problems) {
    Tensor out = t;
    if (out.rank() == 1 && spec.shape().size() == 2 && spec.shape().get(1).equals(Dim.of(1))) {
      out = out.reshape(out.dim(0), 1);
    } else if (out.rank() == 2 && out.dim(1) == 1 && spec.shape().size() == 1) {
      out = out.reshape(out.dim(0));
    }
    if (out.dtype() == spec.dtype()) {
      return out;
    }
    if (spec.dtype() == DType.FLOAT64 && widens(out, spec.name(), problems)) {
      double[] values = new double[out.size()];
      for (int i = 0; i < values.length; i++) {
        values[i] = out.number(i);
      }
      return Tensor.of(values, out.shape());
    }
    if (spec.dtype() == DType.FLOAT32 && out.dtype() == DType.FLOAT64 && narrows(spec, out)) {
      float[] values = new float[out.size()];
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) out.doubles().get(i);
      }
      return Tensor.of(values, out.shape());
    }
    problems.add("input '" + spec.name() + "' is " + out.dtype() + ", expected " + spec.dtype());
    return out;
  }

  private static boolean narrows(TensorSpec spec, Tensor t) {
    if (spec.rounds()) {
      return true;
    }
    for (int i = 0; i < t.size(); i++) {
      double v = t.doubles().get(i);
      if (!Double.isNaN(v) && (float) v != v) {
        return false;
      }
    }
    return true;
  }

  private static void valueProblems(TensorSpec spec, Tensor t, List<String> problems) {
    int width = Math.max(1, spec.columns().size());
    Set<String> missing = new LinkedHashSet<>();
    Set<String> unknown = new LinkedHashSet<>();
    for (int i = 0; i < t.size(); i++) {
      boolean absent =
          switch (t.dtype()) {
            case FLOAT64 -> Double.isNaN(t.doubles().get(i));
            case FLOAT32 -> Float.isNaN(t.floats().get(i));
            case STRING -> t.strings()[i] == null;
            case INT32 -> spec.categorical() && t.ints().get(i) == -1;
            default -> false;
          };
      if (absent && !spec.allowMissing()) {
        missing.add(spec.columns().isEmpty() ? spec.name() : spec.columns().get(i % width).name());
      }
      if (spec.categorical()) {
        Column c = spec.columns().get(i % width);
        int k = c.categories().orElseThrow().size();
        int code = t.ints().get(i);
        if (code < -1 || code > k || code == k && !c.keepUnknown()) {
          unknown.add("'" + c.name() + "': code " + code);
        }
      }
    }
    missing.forEach(n -> problems.add("'" + n + "' holds a missing value, which the model does not take"));
    unknown.forEach(n -> problems.add("column " + n + " is no level of the model"));
  }
}
