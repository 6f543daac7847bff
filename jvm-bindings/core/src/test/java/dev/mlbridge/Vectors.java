package dev.mlbridge;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The vectors that all languages share: {@code proto/vectors}. */
public final class Vectors {
  private Vectors() {}

  /** Returns the folder. */
  public static Path folder() {
    return Path.of(System.getProperty("mlbridge.vectors"));
  }

  /** Returns the entries of a list in {@code vectors.json}. */
  public static List<JsonObject> entries(String list) throws IOException {
    JsonObject all = JsonParser.parseString(Files.readString(folder().resolve("vectors.json"))).getAsJsonObject();
    List<JsonObject> out = new ArrayList<>();
    all.getAsJsonArray(list).forEach(e -> out.add(e.getAsJsonObject()));
    return out;
  }

  /** Returns the bytes of an entry's file. */
  public static ByteBuffer bytes(JsonObject entry) throws IOException {
    return ByteBuffer.wrap(Files.readAllBytes(folder().resolve(entry.get("file").getAsString())));
  }

  /** Returns the tensors an entry announces. */
  public static Map<String, Tensor> tensors(JsonObject entry) {
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (JsonElement e : entry.getAsJsonArray("tensors")) {
      JsonObject t = e.getAsJsonObject();
      long[] shape = t.getAsJsonArray("shape").asList().stream().mapToLong(JsonElement::getAsLong).toArray();
      out.put(t.get("name").getAsString(), tensor(t, shape));
    }
    return out;
  }

  private static Tensor tensor(JsonObject t, long[] shape) {
    DType dtype = DType.of(t.get("dtype").getAsString()).orElseThrow();
    if (dtype != DType.STRING) {
      return Tensor.ofBytes(dtype, ByteBuffer.wrap(HexFormat.of().parseHex(t.get("hex").getAsString())), shape);
    }
    String[] strings =
        t.getAsJsonArray("strings").asList().stream()
            .map(s -> s.isJsonNull() ? null : s.getAsString())
            .toArray(String[]::new);
    return Tensor.ofStrings(strings, shape);
  }
}
