package dev.mlbridge;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonPrimitive;
import com.google.gson.Strictness;
import com.google.gson.internal.Streams;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import java.io.IOException;
import java.io.StringReader;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/** JSON as the other languages write it: strict when read; compact, in order and not escaped when written. Internal. */
public final class Json {
  private Json() {}

  /** Reads one value; ArtifactError where the text is no strict JSON. */
  public static JsonElement parse(String text, String what) {
    try (JsonReader reader = new JsonReader(new StringReader(text))) {
      reader.setStrictness(Strictness.STRICT);
      JsonElement out = Streams.parse(reader);
      if (reader.peek() != JsonToken.END_DOCUMENT) {
        throw artifact(what + " is not JSON: text follows the value");
      }
      return out;
    } catch (IOException | JsonParseException | StackOverflowError e) {
      throw artifact(what + " is not JSON: " + e.getMessage());
    }
  }

  /** Makes an ArtifactError. */
  public static MlbridgeException artifact(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.ARTIFACT, text);
  }

  /** Demands an object with no other keys than those allowed, and all those needed. */
  public static JsonObject object(JsonElement e, String where, Set<String> allowed, Set<String> needed) {
    if (!(e instanceof JsonObject object)) {
      throw artifact(where + " is not an object");
    }
    Set<String> unknown = new TreeSet<>(object.keySet());
    unknown.removeAll(allowed);
    if (!unknown.isEmpty()) {
      throw artifact(where + " has unknown keys: " + unknown).withHint("it may need a newer mlbridge");
    }
    Set<String> absent = new TreeSet<>(needed);
    absent.removeAll(object.keySet());
    if (!absent.isEmpty()) {
      throw artifact(where + " lacks " + absent);
    }
    return object;
  }

  /** Demands a list. */
  public static JsonArray array(JsonElement e, String where) {
    if (e instanceof JsonArray array) {
      return array;
    }
    throw artifact(where + " is not a list");
  }

  /** Demands a string. */
  public static String string(JsonElement e, String where) {
    if (e instanceof JsonPrimitive p && p.isString()) {
      return p.getAsString();
    }
    throw artifact(where + " is not a string");
  }

  /** Demands true or false. */
  public static boolean bool(JsonElement e, String where) {
    if (e instanceof JsonPrimitive p && p.isBoolean()) {
      return p.getAsBoolean();
    }
    throw artifact(where + " is not true or false");
  }

  /** Reads an integer: digits alone, for 1.0 is a floating-point number in every language of ours. */
  public static long integer(JsonElement e, String where) {
    if (e instanceof JsonPrimitive p && p.isNumber() && p.getAsString().matches("-?[0-9]{1,19}")) {
      try {
        return Long.parseLong(p.getAsString());
      } catch (NumberFormatException tooLarge) {
        throw artifact(where + " is out of range: " + p.getAsString());
      }
    }
    throw artifact(where + " is not an integer");
  }

  /** Writes a value made of maps, lists, strings, booleans and numbers. */
  public static void write(StringBuilder out, Object value) {
    if (value instanceof Map<?, ?> map) {
      String comma = "{";
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        out.append(comma);
        quote(out, (String) entry.getKey());
        out.append(':');
        write(out, entry.getValue());
        comma = ",";
      }
      out.append(map.isEmpty() ? "{}" : "}");
    } else if (value instanceof List<?> list) {
      String comma = "[";
      for (Object item : list) {
        out.append(comma);
        write(out, item);
        comma = ",";
      }
      out.append(list.isEmpty() ? "[]" : "]");
    } else if (value instanceof String text) {
      quote(out, text);
    } else {
      out.append(value);
    }
  }

  private static void quote(StringBuilder out, String text) {
    out.append('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      switch (c) {
        case '"' -> out.append("\\\"");
        case '\\' -> out.append("\\\\");
        case '\n' -> out.append("\\n");
        case '\r' -> out.append("\\r");
        case '\t' -> out.append("\\t");
        case '\b' -> out.append("\\b");
        case '\f' -> out.append("\\f");
        default -> {
          if (c < 0x20) {
            out.append(String.format("\\u%04x", (int) c));
          } else {
            out.append(c);
          }
        }
      }
    }
    out.append('"');
  }
}
