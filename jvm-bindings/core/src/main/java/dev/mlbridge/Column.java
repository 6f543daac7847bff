package dev.mlbridge;

import java.util.HashSet;
import java.util.List;
import java.util.Optional;

/**
 * One named column of a tensor's last axis.
 *
 * @param name as users write it in tables and records
 * @param categories the training levels in order, all String, all Long or all Boolean; the tensor then holds int32
 *     codes: -1 missing, 0..k-1 levels, k unknown
 * @param ordered whether the levels are ordered
 * @param keepUnknown whether the model itself answers a level it was not trained on; else such a level is refused
 * @param unit {@code date} (days since 1970-01-01), {@code timestamp} (seconds since the epoch, UTC), or any other
 */
public record Column(
    String name,
    Optional<List<Object>> categories,
    boolean ordered,
    boolean keepUnknown,
    Optional<String> unit) {
  /** Checks the rules of a column; SignatureError where one is broken. */
  public Column {
    if (name.isEmpty()) {
      throw problem("a column's name must be a non-empty string");
    }
    categories = categories.map(List::copyOf);
    if (categories.isEmpty() && (ordered || keepUnknown)) {
      throw problem("column '" + name + "': ordered and unknown='keep' need categories");
    }
    if (categories.isPresent()) {
      checkLevels(name, categories.get());
    }
  }

  private static void checkLevels(String name, List<Object> levels) {
    if (new HashSet<>(levels).size() != levels.size()) {
      throw problem("column '" + name + "': a category occurs twice");
    }
    Class<?> first = levels.isEmpty() ? String.class : levels.get(0).getClass();
    boolean known = first == String.class || first == Long.class || first == Boolean.class;
    if (!known || !levels.stream().allMatch(v -> v.getClass() == first)) {
      throw problem("column '" + name + "': categories are not all String, all Long or all Boolean");
    }
  }

  private static MlbridgeException problem(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.SIGNATURE, text);
  }

  /** Makes a plain column. */
  public static Column of(String name) {
    return new Column(name, Optional.empty(), false, false, Optional.empty());
  }

  /** Makes a column of categories, its training levels in order. */
  public static Column ofLevels(String name, List<?> levels) {
    return new Column(name, Optional.of(List.copyOf(levels)), false, false, Optional.empty());
  }

  /** Returns a copy whose unknown levels reach the model. */
  public Column keepingUnknown() {
    return new Column(name, categories, ordered, true, unit);
  }

  /** Returns a copy with a unit. */
  public Column withUnit(String text) {
    return new Column(name, categories, ordered, keepUnknown, Optional.of(text));
  }

  /** Writes a level as text: strings as they are, true or false, integers in decimal. */
  public static String levelText(Object level) {
    return String.valueOf(level);
  }
}
