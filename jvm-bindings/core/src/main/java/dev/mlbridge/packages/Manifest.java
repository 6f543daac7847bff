package dev.mlbridge.packages;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import dev.mlbridge.Json;
import dev.mlbridge.Signature;
import dev.mlbridge.SignatureJson;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A package's {@code mlbridge.json}.
 *
 * @param files every other file of the package: its size and sha256
 */
public record Manifest(
    String name,
    String version,
    Signature signature,
    List<Implementation> implementations,
    Map<String, FileEntry> files) {
  static final String FILE = "mlbridge.json";
  static final int FORMAT_VERSION = 1;

  /** What the manifest says of one file. */
  public record FileEntry(long size, String sha256) {}

  static Manifest parse(String text) {
    if (!(Json.parse(text, FILE) instanceof JsonObject o)) {
      throw Json.artifact(FILE + " is not an object");
    }
    long format = Json.integer(member(o, "format_version"), "format_version");
    if (format < 1) {
      throw Json.artifact("format_version is " + format + ", not a positive integer");
    }
    if (format > FORMAT_VERSION) {
      throw Json.artifact("format version " + format + "; this mlbridge reads up to " + FORMAT_VERSION)
          .withHint("upgrade mlbridge");
    }
    Map<String, FileEntry> files = files(member(o, "files"));
    List<Implementation> implementations = new ArrayList<>();
    for (JsonElement e : Json.array(member(o, "implementations"), "implementations")) {
      implementations.add(implementation(e, files));
    }
    if (implementations.isEmpty()) {
      throw Json.artifact("the package has no implementation");
    }
    return new Manifest(
        text(o, "name"), text(o, "version"), SignatureJson.read(member(o, "signature")), implementations, files);
  }

  private static JsonElement member(JsonObject o, String key) {
    return Optional.ofNullable(o.get(key)).orElseThrow(() -> Json.artifact(FILE + " lacks " + key));
  }

  private static String text(JsonObject o, String key) {
    return o.has(key) ? Json.string(o.get(key), key) : "";
  }

  private static Map<String, FileEntry> files(JsonElement e) {
    if (!(e instanceof JsonObject o)) {
      throw Json.artifact(FILE + " lists no files");
    }
    Map<String, FileEntry> out = new LinkedHashMap<>();
    for (Map.Entry<String, JsonElement> entry : o.entrySet()) {
      if (!(entry.getValue() instanceof JsonObject file)) {
        throw Json.artifact(FILE + ": '" + entry.getKey() + "' is not an object");
      }
      long size = Json.integer(member(file, "size"), "a file's size");
      out.put(entry.getKey(), new FileEntry(size, Json.string(member(file, "sha256"), "a file's sha256")));
    }
    return out;
  }

  private static Implementation implementation(JsonElement e, Map<String, FileEntry> files) {
    if (!(e instanceof JsonObject o)) {
      throw Json.artifact("an implementation is not an object");
    }
    String path = Json.string(member(o, "path"), "an implementation's path");
    Names.check(path);
    if (!files.containsKey(path) && files.keySet().stream().noneMatch(f -> f.startsWith(path + "/"))) {
      throw Json.artifact("an implementation names a file that is not there: '" + path + "'");
    }
    Map<String, String> options = new LinkedHashMap<>();
    if (o.get("options") instanceof JsonObject given) {
      for (Map.Entry<String, JsonElement> entry : given.entrySet()) {
        boolean text = entry.getValue() instanceof JsonPrimitive;
        options.put(entry.getKey(), text ? entry.getValue().getAsString() : entry.getValue().toString());
      }
    }
    String runtime = Json.string(member(o, "runtime"), "an implementation's runtime");
    return new Implementation(runtime, path, Json.string(member(o, "format"), "a format"), options, tolerance(o));
  }

  private static Optional<Double> tolerance(JsonObject o) {
    boolean there =
        o.get("parity") instanceof JsonObject parity
            && parity.get("tolerance") instanceof JsonPrimitive p
            && p.isNumber();
    return there
        ? Optional.of(o.getAsJsonObject("parity").get("tolerance").getAsDouble())
            .filter(t -> t > 0 && t <= 1e-4) // never a laxer one than single precision allows
        : Optional.empty();
  }
}
