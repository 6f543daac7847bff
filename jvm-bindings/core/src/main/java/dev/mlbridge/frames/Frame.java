package dev.mlbridge.frames;

import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * One frame: its type, the request it belongs to, and its named tensors in order.
 *
 * @param requestId unsigned, 32 bits
 */
public record Frame(FrameType type, int requestId, Map<String, Tensor> tensors) {
  /** Returns a scalar string, if it is there. */
  public Optional<String> text(String name) {
    return Optional.ofNullable(tensors.get(name))
        .filter(t -> one(t, name, t.dtype() == DType.STRING, "string"))
        .map(t -> t.strings()[0]);
  }

  /** Returns a scalar integer, if it is there. */
  public OptionalLong integer(String name) {
    Tensor t = tensors.get(name);
    if (t == null || !one(t, name, t.dtype() == DType.INT64 || t.dtype() == DType.INT32, "integer")) {
      return OptionalLong.empty();
    }
    return OptionalLong.of(t.dtype() == DType.INT64 ? t.longs().get(0) : t.ints().get(0));
  }

  /** Returns a list of strings, empty where it is absent; missing elements are left out. */
  public List<String> texts(String name) {
    Tensor t = tensors.get(name);
    if (t == null) {
      return List.of();
    }
    List<String> out = new ArrayList<>();
    for (String s : t.strings()) {
      if (Objects.nonNull(s)) {
        out.add(s);
      }
    }
    return out;
  }

  private boolean one(Tensor t, String name, boolean kind, String what) {
    if (!kind || t.size() != 1) {
      throw MlbridgeException.of(
          MlbridgeException.Kind.BRIDGE, type + ": '" + name + "' is not one " + what);
    }
    return true;
  }

  /** Collects the tensors of a frame: scalars, lists and arrays by name. */
  public static final class Fields {
    private final Map<String, Tensor> tensors = new LinkedHashMap<>();

    /** Adds a scalar string. */
    public Fields put(String name, String value) {
      tensors.put(name, Tensor.ofStrings(new String[] {value}));
      return this;
    }

    /** Adds a scalar integer. */
    public Fields put(String name, long value) {
      tensors.put(name, Tensor.of(new long[] {value}));
      return this;
    }

    /** Adds a list of strings. */
    public Fields put(String name, List<String> values) {
      tensors.put(name, Tensor.ofStrings(values.toArray(String[]::new), values.size()));
      return this;
    }

    /** Makes the frame. */
    public Frame frame(FrameType type, int requestId) {
      return new Frame(type, requestId, tensors);
    }
  }
}
