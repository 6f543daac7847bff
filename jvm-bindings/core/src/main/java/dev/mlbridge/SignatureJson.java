package dev.mlbridge;

import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** The one JSON form of a signature, shared by all languages: byte for byte what Python writes. Internal. */
public final class SignatureJson {
  static final int VERSION = 1;

  private SignatureJson() {}

  static String write(Signature signature) {
    StringBuilder out = new StringBuilder();
    Json.write(out, toMap(signature));
    return out.toString();
  }

  /** Returns the JSON form as maps and lists. */
  public static Map<String, Object> toMap(Signature signature) {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("version", VERSION);
    out.put("inputs", signature.inputs().stream().map(SignatureJson::specMap).toList());
    out.put("outputs", signature.outputs().stream().map(SignatureJson::specMap).toList());
    return out;
  }

  private static Map<String, Object> specMap(TensorSpec spec) {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("name", spec.name());
    out.put("dtype", spec.dtype().text());
    List<Object> shape = new ArrayList<>();
    for (Dim dim : spec.shape()) {
      if (dim instanceof Dim.Size s) {
        shape.add(s.value());
      } else if (dim instanceof Dim.Symbol s) {
        shape.add(s.name());
      } else {
        shape.add(JsonNull.INSTANCE);
      }
    }
    out.put("shape", shape);
    if (!spec.columns().isEmpty()) {
      out.put("columns", spec.columns().stream().map(SignatureJson::columnMap).toList());
    }
    if (spec.allowMissing()) {
      out.put("missing", "allow");
    }
    if (spec.rounds()) {
      out.put("rounding", "nearest");
    }
    return out;
  }

  private static Map<String, Object> columnMap(Column column) {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("name", column.name());
    column.categories().ifPresent(levels -> out.put("categories", levels));
    if (column.ordered()) {
      out.put("ordered", true);
    }
    if (column.keepUnknown()) {
      out.put("unknown", "keep");
    }
    column.unit().ifPresent(unit -> out.put("unit", unit));
    return out;
  }

  static Signature read(String text) {
    return read(Json.parse(text, "the signature"));
  }

  /** Reads the parsed JSON form. */
  public static Signature read(JsonElement element) {
    Set<String> keys = Set.of("version", "inputs", "outputs");
    JsonObject o = Json.object(element, "signature", keys, keys);
    long version = Json.integer(o.get("version"), "the signature's version");
    if (version < 1) {
      throw Json.artifact("the signature's version is " + version + ", not a positive integer");
    }
    if (version > VERSION) {
      throw Json.artifact(
              "the signature has version " + version + "; this mlbridge reads up to " + VERSION)
          .withHint("upgrade mlbridge");
    }
    try {
      return new Signature(specs(o.get("inputs"), "inputs"), specs(o.get("outputs"), "outputs"));
    } catch (MlbridgeException e) {
      if (e.kind() != MlbridgeException.Kind.SIGNATURE) {
        throw e;
      }
      throw Json.artifact("the signature is malformed: " + e.getMessage()).withCause(e);
    }
  }

  private static List<TensorSpec> specs(JsonElement element, String where) {
    List<TensorSpec> out = new ArrayList<>();
    for (JsonElement e : Json.array(element, "the signature's " + where)) {
      out.add(spec(e));
    }
    return out;
  }

  private static TensorSpec spec(JsonElement element) {
    JsonObject o =
        Json.object(
            element,
            "a tensor of the signature",
            Set.of("name", "dtype", "shape", "columns", "missing", "rounding"),
            Set.of("name", "dtype", "shape"));
    String dtype = Json.string(o.get("dtype"), "a tensor's dtype");
    List<Dim> shape = new ArrayList<>();
    for (JsonElement e : Json.array(o.get("shape"), "a tensor's shape")) {
      shape.add(dim(e));
    }
    List<Column> columns = new ArrayList<>();
    if (o.has("columns")) {
      for (JsonElement e : Json.array(o.get("columns"), "columns")) {
        columns.add(column(e));
      }
    }
    return new TensorSpec(
        Json.string(o.get("name"), "a tensor's name"),
        DType.of(dtype).orElseThrow(() -> Json.artifact("the signature is malformed: dtype '" + dtype + "' is unknown")),
        shape,
        columns,
        choice(o, "missing", "refuse", "allow"),
        choice(o, "rounding", "refuse", "nearest"));
  }

  private static Dim dim(JsonElement e) {
    if (e instanceof JsonNull) {
      return Dim.ANY;
    }
    if (e instanceof JsonPrimitive p && p.isString()) {
      return new Dim.Symbol(p.getAsString());
    }
    return Dim.of(Json.integer(e, "an axis of a shape"));
  }

  private static Column column(JsonElement element) {
    JsonObject o =
        Json.object(
            element,
            "a column of the signature",
            Set.of("name", "categories", "ordered", "unknown", "unit"),
            Set.of("name"));
    Optional<List<Object>> levels = Optional.empty();
    if (o.has("categories") && !o.get("categories").isJsonNull()) {
      List<Object> values = new ArrayList<>();
      for (JsonElement e : Json.array(o.get("categories"), "categories")) {
        values.add(level(e));
      }
      levels = Optional.of(values);
    }
    boolean hasUnit = o.has("unit") && !o.get("unit").isJsonNull();
    return new Column(
        Json.string(o.get("name"), "a column's name"),
        levels,
        o.has("ordered") && Json.bool(o.get("ordered"), "a column's 'ordered'"),
        choice(o, "unknown", "refuse", "keep"),
        hasUnit ? Optional.of(Json.string(o.get("unit"), "a column's unit")) : Optional.empty());
  }

  private static Object level(JsonElement e) {
    if (e instanceof JsonPrimitive p && p.isString()) {
      return p.getAsString();
    }
    if (e instanceof JsonPrimitive p && p.isBoolean()) {
      return p.getAsBoolean();
    }
    return Json.integer(e, "a category");
  }

  private static boolean choice(JsonObject o, String key, String no, String yes) {
    if (!o.has(key)) {
      return false;
    }
    String value = Json.string(o.get(key), "'" + key + "'");
    if (!value.equals(no) && !value.equals(yes)) {
      throw Json.artifact("the signature is malformed: " + key + " must be '" + no + "' or '" + yes + "', not '" + value + "'");
    }
    return value.equals(yes);
  }
}
