package dev.mlbridge;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * The only coercion: what a caller hands over to tensors that satisfy a signature, all problems in one InputError.
 *
 * <p>A caller gives whole blocks by their names, or single columns by theirs: (rows) or (rows, 1). Categories are given
 * by the values of their levels, or for a block as int32 codes. Numbers change their type where every value survives.
 */
public final class Feeds {
  private final Signature signature;
  private final Map<String, Tensor> given;
  private final List<String> problems = new ArrayList<>();
  private final Map<String, Long> symbols = new HashMap<>();

  private Feeds(Signature signature, Map<String, Tensor> given) {
    this.signature = signature;
    this.given = given;
  }

  /**
   * Returns tensors that satisfy the signature.
   *
   * @throws MlbridgeException (InputError) that lists every problem
   */
  public static Map<String, Tensor> of(Signature signature, Map<String, Tensor> given) {
    return new Feeds(signature, given).satisfying();
  }

  private Map<String, Tensor> satisfying() {
    Map<String, Tensor> out = new LinkedHashMap<>();
    Set<String> unused = new LinkedHashSet<>(given.keySet());
    for (TensorSpec spec : signature.inputs()) {
      int before = problems.size();
      unused.remove(spec.name());
      spec.columns().forEach(c -> unused.remove(c.name()));
      Optional<Tensor> found = isBlock(spec) ? block(spec, given.get(spec.name())) : assembled(spec);
      found.ifPresent(t -> checkSizes(spec, t));
      if (problems.size() == before) {
        found.ifPresent(t -> out.put(spec.name(), t));
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

  /** Whether the caller gave the block itself; a block that has its name from one of several columns may be both. */
  private boolean isBlock(TensorSpec spec) {
    List<Column> columns = spec.columns();
    boolean single = columns.size() == 1 && columns.get(0).name().equals(spec.name());
    return given.containsKey(spec.name()) && (single || !columns.stream().allMatch(c -> given.containsKey(c.name())) || columns.isEmpty());
  }

  // -------------------------------------------------- blocks

  private Optional<Tensor> block(TensorSpec spec, Tensor value) {
    String where = "input '" + spec.name() + "'";
    Tensor t = ranked(spec, value);
    if (t.rank() != spec.shape().size()) {
      problems.add(where + ": " + t + ", expected " + spec);
      return Optional.empty();
    }
    if (spec.categorical() && t.dtype() != DType.INT32) {
      return encoded(spec, t, where);
    }
    Optional<Tensor> out = Numbers.to(spec, t, where, problems);
    out.ifPresent(o -> checkValues(spec, o, where));
    return out;
  }

  /** (rows) and (rows, 1) fit each other. */
  private static Tensor ranked(TensorSpec spec, Tensor t) {
    if (spec.batched() && t.rank() == 1 && spec.shape().size() == 2 && spec.shape().get(1).equals(Dim.of(1))) {
      return t.reshape(t.dim(0), 1);
    }
    if (spec.batched() && t.rank() == 2 && t.dim(1) == 1 && spec.shape().size() == 1) {
      return t.reshape(t.dim(0));
    }
    return t;
  }

  private Optional<Tensor> encoded(TensorSpec spec, Tensor t, String where) {
    int width = spec.columns().size();
    if (t.rank() > 1 && t.dim(-1) != width) {
      problems.add(where + ": " + t + ", expected " + spec);
      return Optional.empty();
    }
    int before = problems.size();
    int[] codes = new int[t.size()];
    for (int k = 0; k < width; k++) {
      Levels.encode(spec.columns().get(k), t, k, width, codes, spec.allowMissing(), problems);
    }
    return problems.size() > before ? Optional.empty() : Optional.of(Tensor.of(codes, t.shape()));
  }

  // -------------------------------------------------- columns

  private Optional<Tensor> assembled(TensorSpec spec) {
    if (spec.columns().isEmpty()) {
      problems.add("input '" + spec.name() + "' is absent");
      return Optional.empty();
    }
    int before = problems.size();
    List<Tensor> columns = new ArrayList<>();
    for (Column c : spec.columns()) {
      column(spec, c).ifPresent(columns::add);
    }
    if (problems.size() > before) {
      return Optional.empty();
    }
    for (int i = 1; i < columns.size(); i++) {
      if (columns.get(i).dim(0) != columns.get(0).dim(0)) {
        String name = spec.columns().get(i).name();
        problems.add("column '" + name + "' has " + columns.get(i).dim(0) + " rows, the first has " + columns.get(0).dim(0));
      }
    }
    return problems.size() > before ? Optional.empty() : Optional.of(joined(spec, columns));
  }

  private Optional<Tensor> column(TensorSpec spec, Column c) {
    String where = "column '" + c.name() + "'";
    Tensor t = given.get(c.name());
    if (t == null) {
      problems.add(where + " is absent");
      return Optional.empty();
    }
    if (t.rank() != 1 && !(t.rank() == 2 && t.dim(1) == 1)) {
      problems.add(where + " has " + t.rank() + " axes, expected one");
      return Optional.empty();
    }
    Tensor flat = t.rank() == 1 ? t : t.reshape(t.dim(0));
    if (c.categories().isPresent()) {
      return Levels.codes(c, flat, spec.allowMissing(), problems).map(codes -> Tensor.of(codes, codes.length));
    }
    Optional<Tensor> out = Numbers.to(spec, flat, where, problems);
    out.ifPresent(o -> checkMissing(spec, o, 1, k -> where));
    return out;
  }

  private static Tensor joined(TensorSpec spec, List<Tensor> columns) {
    int rows = (int) columns.get(0).dim(0);
    int width = columns.size();
    if (spec.shape().size() == 1) {
      return columns.get(0);
    }
    if (spec.dtype() == DType.STRING) {
      String[] out = new String[rows * width];
      for (int i = 0; i < out.length; i++) {
        out[i] = columns.get(i % width).strings()[i / width];
      }
      return Tensor.ofStrings(out, rows, width);
    }
    int size = spec.dtype().size();
    ByteBuffer out = ByteBuffer.allocate(rows * width * size).order(ByteOrder.LITTLE_ENDIAN);
    for (int k = 0; k < width; k++) {
      ByteBuffer from = columns.get(k).bytes();
      for (int i = 0; i < rows; i++) {
        out.put((i * width + k) * size, from, i * size, size);
      }
    }
    return Tensor.ofBytes(spec.dtype(), out, rows, width);
  }

  // -------------------------------------------------- rules

  private void checkSizes(TensorSpec spec, Tensor t) {
    for (int i = 0; i < t.rank(); i++) {
      Dim want = spec.shape().get(i);
      long size = t.dim(i);
      if (want instanceof Dim.Size s && s.value() != size) {
        problems.add("input '" + spec.name() + "': axis " + i + " is " + size + ", expected " + want);
      } else if (want instanceof Dim.Symbol y && symbols.merge(y.name(), size, (a, b) -> a) != size) {
        problems.add("input '" + spec.name() + "': " + want + " is " + size + ", and " + symbols.get(y.name()) + " in another input");
      }
    }
  }

  private void checkValues(TensorSpec spec, Tensor t, String where) {
    if (spec.categorical()) {
      Levels.check(spec, t, problems);
    } else {
      List<Column> columns = spec.columns();
      checkMissing(spec, t, Math.max(1, columns.size()), k -> columns.isEmpty() ? where : "column '" + columns.get(k).name() + "'");
    }
  }

  private void checkMissing(TensorSpec spec, Tensor t, int width, java.util.function.IntFunction<String> where) {
    if (spec.allowMissing() || !(t.dtype() == DType.STRING || Numbers.isFloat(t.dtype()))) {
      return;
    }
    boolean[] holds = new boolean[width];
    for (int i = 0; i < t.size(); i++) {
      holds[i % width] |= t.dtype() == DType.STRING ? t.strings()[i] == null : Double.isNaN(t.number(i));
    }
    for (int k = 0; k < width; k++) {
      if (holds[k]) {
        problems.add(where.apply(k) + " holds a missing value, which the model refuses");
      }
    }
  }
}
