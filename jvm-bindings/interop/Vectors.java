import dev.mlbridge.DType;
import dev.mlbridge.Json;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.shaded.gson.JsonArray;
import dev.mlbridge.shaded.gson.JsonElement;
import dev.mlbridge.shaded.gson.JsonObject;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The matrix's cases (docs/interop.md) and their tensors: values from JSON and back, bit by bit. */
final class Vectors {
  private static final int SUMMED_BYTES = 1 << 16; // larger answers are compared by their hash

  private Vectors() {}

  /** Reads the file: {@code models} and {@code cases}. */
  static JsonObject read(String path) throws IOException {
    return Json.parse(Files.readString(Path.of(path)), path).getAsJsonObject();
  }

  /** Finds an element of a list by its name. */
  static JsonObject named(JsonArray list, String name) {
    for (JsonElement e : list) {
      if (e.getAsJsonObject().get("name").getAsString().equals(name)) {
        return e.getAsJsonObject();
      }
    }
    throw new IllegalArgumentException("there is no case " + name);
  }

  /** Makes a tensor of a case; levels by the type of their values, text where one is missing. */
  static Tensor tensor(JsonObject given) {
    long[] shape = given.getAsJsonArray("shape").asList().stream().mapToLong(JsonElement::getAsLong).toArray();
    if (given.has("strings")) {
      return Tensor.ofStrings(texts(given.getAsJsonArray("strings")), shape);
    }
    if (given.has("levels")) {
      return levels(given.getAsJsonArray("levels"), shape);
    }
    DType dtype = DType.of(given.get("dtype").getAsString()).orElseThrow();
    if (given.has("fill")) {
      double[] values = new double[(int) (shape[0] * shape[1])];
      Arrays.setAll(values, i -> i);
      return Tensor.of(values, shape);
    }
    byte[] bytes = HexFormat.of().parseHex(given.get("hex").getAsString());
    return Tensor.ofBytes(dtype, ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN), shape);
  }

  private static Tensor levels(JsonArray values, long[] shape) {
    List<JsonElement> known = values.asList().stream().filter(v -> !v.isJsonNull()).toList();
    if (known.size() == values.size() && known.get(0).getAsJsonPrimitive().isNumber()) {
      return Tensor.of(known.stream().mapToLong(JsonElement::getAsLong).toArray(), shape);
    }
    if (known.size() == values.size() && known.get(0).getAsJsonPrimitive().isBoolean()) {
      boolean[] out = new boolean[known.size()];
      for (int i = 0; i < out.length; i++) {
        out[i] = known.get(i).getAsBoolean();
      }
      return Tensor.of(out, shape);
    }
    return Tensor.ofStrings(texts(values), shape);
  }

  private static String[] texts(JsonArray values) {
    return values.asList().stream().map(v -> v.isJsonNull() ? null : v.getAsString()).toArray(String[]::new);
  }

  /** Writes an answer as docs/interop.md says. */
  static Map<String, Object> written(TensorSpec spec, Tensor tensor) {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("name", spec.name());
    out.put("dtype", spec.categorical() ? "level" : spec.dtype().text());
    out.put("shape", Arrays.stream(tensor.shape()).boxed().toList());
    if (spec.categorical()) {
      out.put("levels", values(tensor));
    } else if (tensor.dtype() == DType.STRING) {
      out.put("strings", new ArrayList<>(Arrays.asList(tensor.strings())));
    } else {
      ByteBuffer bytes = tensor.bytes();
      byte[] data = new byte[bytes.remaining()];
      bytes.get(data);
      if (data.length <= SUMMED_BYTES) {
        out.put("hex", HexFormat.of().formatHex(data));
      } else {
        out.put("sha256", HexFormat.of().formatHex(sha256(data)));
      }
    }
    return out;
  }

  private static List<Object> values(Tensor tensor) {
    List<Object> out = new ArrayList<>();
    for (int i = 0; i < tensor.size(); i++) {
      switch (tensor.dtype()) {
        case STRING -> out.add(tensor.strings()[i]);
        case BOOL -> out.add(tensor.number(i) != 0);
        default -> out.add((long) tensor.number(i));
      }
    }
    return out;
  }

  private static byte[] sha256(byte[] data) {
    try {
      return MessageDigest.getInstance("SHA-256").digest(data);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Returns what follows an option on the command line. */
  static Optional<String> option(String[] given, String name) {
    int at = Arrays.asList(given).indexOf(name);
    return at < 0 ? Optional.empty() : Optional.of(given[at + 1]);
  }
}
