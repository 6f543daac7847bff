package dev.mlbridge;

import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Categories: the values of their levels to int32 codes (-1 missing, 0..k-1 levels, k unknown), and back. */
final class Levels {
  private static final int SHOWN = 5; // levels in one message
  private static final Object WRONG = new Object();

  private Levels() {}

  /** Returns the codes of one column's values; nothing, and a problem, where one is no level. */
  static Optional<int[]> codes(Column column, Tensor values, boolean allowMissing, List<String> problems) {
    int[] all = new int[values.size()];
    int before = problems.size();
    encode(column, values, 0, 1, all, allowMissing, problems);
    return problems.size() > before ? Optional.empty() : Optional.of(all);
  }

  /** Fills the codes of one column of a block, whose elements are {@code first, first + step, …}. */
  static void encode(Column column, Tensor values, int first, int step, int[] out, boolean allowMissing, List<String> problems) {
    List<Object> levels = column.categories().orElseThrow();
    Map<Object, Integer> index = new HashMap<>();
    for (int i = 0; i < levels.size(); i++) {
      index.put(levels.get(i), i);
    }
    Class<?> kind = kind(levels);
    Set<String> unknown = new LinkedHashSet<>();
    Set<String> wrong = new LinkedHashSet<>();
    int gone = 0;
    for (int i = first; i < out.length; i += step) {
      if (missing(values, i)) {
        out[i] = -1;
        gone++;
        continue;
      }
      Object level = level(values, i, kind);
      if (level == WRONG) {
        wrong.add(shown(values, i));
        continue;
      }
      out[i] = index.getOrDefault(level, levels.size());
      if (out[i] == levels.size() && !column.keepUnknown()) {
        unknown.add(shown(values, i));
      }
    }
    String where = "column '" + column.name() + "': ";
    if (!wrong.isEmpty()) {
      problems.add(where + some(wrong) + (wrong.size() == 1 ? " is" : " are") + " no " + word(kind) + "; the levels are " + some(levels));
    }
    if (!unknown.isEmpty()) {
      problems.add(where + "unknown level" + (unknown.size() > 1 ? "s " : " ") + some(unknown) + "; known are " + some(levels));
    }
    if (gone > 0 && !allowMissing) {
      problems.add(where + gone + " missing value" + (gone > 1 ? "s" : "") + "; the model refuses missing values");
    }
  }

  private static boolean missing(Tensor t, int i) {
    return t.dtype() == DType.STRING ? t.strings()[i] == null : Numbers.isFloat(t.dtype()) && Double.isNaN(t.number(i));
  }

  static Class<?> kind(List<Object> levels) {
    return levels.isEmpty() ? String.class : levels.get(0).getClass();
  }

  private static String word(Class<?> kind) {
    return kind == String.class ? "text" : kind == Long.class ? "integer" : "true or false";
  }

  private static Object level(Tensor t, int i, Class<?> kind) {
    if (t.dtype() == DType.STRING) {
      return parsed(t.strings()[i], kind);
    }
    if (kind == String.class || t.dtype() == DType.BFLOAT16 || kind == Long.class && t.dtype() == DType.BOOL) {
      return WRONG;
    }
    if (!Numbers.isFloat(t.dtype())) {
      long value = Numbers.integer(t, i);
      return kind == Long.class ? (Object) value : value == 0 || value == 1 ? (Object) (value == 1) : WRONG;
    }
    double value = t.number(i);
    if (kind == Boolean.class) {
      return value == 0 || value == 1 ? (Object) (value == 1) : WRONG;
    }
    return value == (long) value ? (Object) (long) value : (Object) value; // a fraction is an unknown level
  }

  /** Reads a level from its text: where one may be missing, integers and truth values travel as text. */
  private static Object parsed(String text, Class<?> kind) {
    if (kind == String.class) {
      return text;
    }
    if (kind == Boolean.class) {
      return text.equals("true") ? (Object) true : text.equals("false") ? (Object) false : WRONG;
    }
    try {
      return text.matches("-?[0-9]{1,19}") ? (Object) Long.parseLong(text) : WRONG;
    } catch (NumberFormatException tooLarge) {
      return WRONG;
    }
  }

  private static String shown(Tensor t, int i) {
    if (t.dtype() != DType.STRING) {
      return Numbers.isFloat(t.dtype()) ? Double.toString(t.number(i)) : Long.toString(Numbers.integer(t, i));
    }
    String text = t.strings()[i];
    return "'" + (text.length() > 128 ? text.substring(0, 128) + "…" : text) + "'";
  }

  static String some(Iterable<?> items) {
    StringBuilder out = new StringBuilder();
    int n = 0;
    for (Object item : items) {
      if (n++ < SHOWN) {
        out.append(n > 1 ? ", " : "").append(item);
      }
    }
    return n > SHOWN ? out + ", … (" + n + " in all)" : out.toString();
  }

  /** Checks the codes of a block against its columns' levels and rules. */
  static void check(TensorSpec spec, Tensor codes, List<String> problems) {
    List<Column> columns = spec.columns();
    for (int k = 0; k < columns.size(); k++) {
      Column column = columns.get(k);
      int known = column.categories().orElseThrow().size();
      int low = spec.allowMissing() ? -1 : 0;
      int high = column.keepUnknown() ? known : known - 1;
      for (int i = k; i < codes.size(); i += columns.size()) {
        int code = codes.ints().get(i);
        if (code < low || code > high) {
          String other = code == known ? "an unknown level" : "not in " + low + ".." + high;
          String why = code == -1 ? "a missing value, which the model refuses" : other;
          problems.add("column '" + column.name() + "': code " + code + " is " + why);
          break;
        }
      }
    }
  }

  /** Returns the values of a categorical output: text, or the levels' own type where none is missing. */
  static Tensor values(TensorSpec spec, Tensor codes) {
    int width = spec.columns().size();
    Object[] out = new Object[codes.size()];
    boolean complete = true;
    for (int i = 0; i < out.length; i++) {
      List<Object> levels = spec.columns().get(i % width).categories().orElseThrow();
      int code = codes.ints().get(i);
      out[i] = code >= 0 && code < levels.size() ? levels.get(code) : null;
      complete &= out[i] != null;
    }
    Class<?> kind = kind(spec.columns().get(0).categories().orElseThrow());
    boolean alike = spec.columns().stream().allMatch(c -> kind(c.categories().orElseThrow()) == kind);
    if (complete && alike && kind == Long.class) {
      long[] numbers = new long[out.length];
      for (int i = 0; i < numbers.length; i++) {
        numbers[i] = (Long) out[i];
      }
      return Tensor.of(numbers, codes.shape());
    }
    if (complete && alike && kind == Boolean.class) {
      boolean[] truths = new boolean[out.length];
      for (int i = 0; i < truths.length; i++) {
        truths[i] = (Boolean) out[i];
      }
      return Tensor.of(truths, codes.shape());
    }
    String[] texts = new String[out.length];
    for (int i = 0; i < texts.length; i++) {
      texts[i] = out[i] == null ? null : Column.levelText(out[i]);
    }
    return Tensor.ofStrings(texts, codes.shape());
  }
}
