package dev.mlbridge;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * One named tensor of a signature.
 *
 * @param name its name
 * @param dtype the element type
 * @param shape sizes, symbols or any; {@code rows} is the batch axis, first
 * @param columns names of the last axis, or of the single column a (rows) tensor is
 * @param allowMissing whether NaN, code -1 or a missing string may occur
 * @param rounds whether values may be rounded to this float32 or float16
 */
public record TensorSpec(
    String name,
    DType dtype,
    List<Dim> shape,
    List<Column> columns,
    boolean allowMissing,
    boolean rounds) {
  /** Checks the rules of a tensor; SignatureError where some are broken. */
  public TensorSpec {
    shape = List.copyOf(shape);
    columns = List.copyOf(columns);
    List<String> problems = problems(name, dtype, shape, columns, rounds);
    if (!problems.isEmpty()) {
      throw MlbridgeException.of(
          MlbridgeException.Kind.SIGNATURE,
          problems.stream().map(p -> "tensor '" + name + "': " + p).toList());
    }
  }

  /** Makes a tensor without columns that refuses missing values. */
  public static TensorSpec of(String name, DType dtype, Dim... shape) {
    return new TensorSpec(name, dtype, List.of(shape), List.of(), false, false);
  }

  /** Makes a block of columns: (rows, k). */
  public static TensorSpec block(String name, DType dtype, List<Column> columns) {
    return new TensorSpec(
        name, dtype, List.of(Dim.ROWS, Dim.of(columns.size())), columns, false, false);
  }

  /** Returns a copy in which values may be missing. */
  public TensorSpec allowingMissing() {
    return new TensorSpec(name, dtype, shape, columns, true, rounds);
  }

  /** Returns a copy with columns. */
  public TensorSpec withColumns(List<Column> names) {
    return new TensorSpec(name, dtype, shape, names, allowMissing, rounds);
  }

  /** Returns whether the first axis is the promise {@code rows}. */
  public boolean batched() {
    return !shape.isEmpty() && shape.get(0).equals(Dim.ROWS);
  }

  /** Returns whether the values are codes of categories. */
  public boolean categorical() {
    return !columns.isEmpty() && columns.get(0).categories().isPresent();
  }

  private static List<String> problems(
      String name, DType dtype, List<Dim> shape, List<Column> columns, boolean rounds) {
    List<String> out = new ArrayList<>();
    if (name.isEmpty()) {
      out.add("the name must be a non-empty string");
    }
    for (int i = 0; i < shape.size(); i++) {
      Dim dim = shape.get(i);
      if (dim instanceof Dim.Size s && s.value() < 0
          || dim instanceof Dim.Symbol y && y.name().isEmpty()) {
        out.add("shape[" + i + "] must be a size, a symbol or any, not " + dim);
      }
      if (i > 0 && dim.equals(Dim.ROWS)) {
        out.add("the symbol 'rows' must be the first axis");
      }
    }
    boolean narrow = dtype == DType.FLOAT16 || dtype == DType.FLOAT32 || dtype == DType.BFLOAT16;
    if (rounds && !narrow) {
      out.add("rounding='nearest' is for float32 and float16, not " + dtype);
    }
    if (!columns.isEmpty()) {
      columnProblems(dtype, shape, columns, out);
    }
    return out;
  }

  private static void columnProblems(
      DType dtype, List<Dim> shape, List<Column> columns, List<String> out) {
    Set<String> seen = new HashSet<>();
    String twice =
        columns.stream()
            .map(Column::name)
            .filter(n -> !seen.add(n))
            .distinct()
            .sorted()
            .map(n -> "'" + n + "'")
            .collect(Collectors.joining(", "));
    if (!twice.isEmpty()) {
      out.add("columns occur twice: " + twice);
    }
    if (shape.isEmpty()) {
      out.add("a scalar has no columns");
    } else {
      Dim width = shape.size() > 1 ? shape.get(shape.size() - 1) : Dim.of(1);
      if (width instanceof Dim.Size s && s.value() != columns.size()) {
        out.add(columns.size() + " columns for a last axis of " + s.value());
      }
    }
    long coded = columns.stream().filter(c -> c.categories().isPresent()).count();
    if (coded > 0 && coded < columns.size()) {
      out.add("categorical and other columns cannot share a block");
    } else if (coded > 0 && dtype != DType.INT32) {
      out.add("categories are int32 codes, not " + dtype);
    }
  }

  @Override
  public String toString() {
    return name
        + ": "
        + dtype
        + shape.stream().map(Dim::toString).collect(Collectors.joining(", ", "[", "]"));
  }
}
