package dev.mlbridge.wire;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** Raw tensors, sizes and datatypes. What comes from outside is checked here before anything is allocated for it. */
public final class Wire {
  private static final int MAX_RANK = 32; // nobody means more than a handful
  private static final int MAX_NAME = 128; // characters; longer names break HTTP/2 trailers when echoed
  private static final int LENGTH = 4; // bytes before each BYTES element

  private Wire() {}

  /** Makes an InputError. */
  public static MlbridgeException input(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.INPUT, text);
  }

  /** Quotes a caller's name for a message: cut, without control characters. */
  public static String clip(String name) {
    StringBuilder out = new StringBuilder("'");
    name.codePoints().limit(MAX_NAME).forEach(c -> out.appendCodePoint(Character.isISOControl(c) ? '\uFFFD' : c));
    return out.append(name.codePointCount(0, name.length()) > MAX_NAME ? "…'" : "'").toString();
  }

  // -------------------------------------------------- datatypes

  /** Returns the datatype of a tensor as clients see it: the levels of categories, not their codes. */
  public static String datatype(TensorSpec spec) {
    return spec.categorical() ? levelDatatype(spec) : spec.dtype().oip();
  }

  /** Returns how levels travel: BYTES in a block, else by the levels' type. */
  public static String levelDatatype(TensorSpec spec) {
    return spec.shape().size() > 1 ? "BYTES" : levelDatatype(spec.columns().get(0));
  }

  /** Returns how the levels of a single column travel. */
  public static String levelDatatype(Column column) {
    List<Object> levels = column.categories().orElseThrow();
    return levels.isEmpty() || levels.get(0) instanceof String ? "BYTES" : levels.get(0) instanceof Long ? "INT64" : "BOOL";
  }

  /** Returns a shape as the protocol writes it: -1 for any size. */
  public static List<Long> shape(TensorSpec spec) {
    return spec.shape().stream().map(d -> d instanceof Dim.Size s ? s.value() : -1L).toList();
  }

  /** Returns the element type of a datatype that this side carries. */
  public static DType known(String datatype, String where) {
    for (DType d : DType.values()) {
      if (d.oip().equals(datatype)) {
        if (d == DType.BFLOAT16) {
          throw MlbridgeException.of(MlbridgeException.Kind.UNSUPPORTED, where + ": BF16 is not supported; send FP32");
        }
        return d;
      }
    }
    throw input(where + ": there is no datatype " + clip(datatype));
  }

  // -------------------------------------------------- sizes

  /** Returns the number of elements of a shape that came from outside. */
  static int elements(List<Long> shape, String where) {
    if (shape.size() > MAX_RANK) {
      throw input(where + ": " + shape.size() + " axes, at most " + MAX_RANK + " are accepted");
    }
    long total = 1;
    long largest = 1;
    for (long size : shape) {
      if (size < 0) {
        throw input(where + ": shape " + shape + " has a negative size");
      }
      total = Math.min(total, Integer.MAX_VALUE) * size;
      largest = Math.min(largest, Integer.MAX_VALUE) * Math.max(size, 1);
      if (size > Integer.MAX_VALUE || largest > Integer.MAX_VALUE) {
        throw input(where + ": shape " + shape + " is too large");
      }
    }
    return (int) total;
  }

  /** Returns a shape as an array. */
  static long[] sizes(List<Long> shape) {
    long[] out = new long[shape.size()];
    for (int i = 0; i < out.length; i++) {
      out[i] = shape.get(i);
    }
    return out;
  }

  // -------------------------------------------------- raw

  /**
   * Reads one raw tensor: a view of the bytes, or strings for BYTES.
   *
   * @param where how messages name the tensor
   * @throws MlbridgeException InputError where bytes, datatype and shape do not agree, or text is not UTF-8
   */
  public static Tensor raw(ByteString raw, String datatype, List<Long> shape, String where) {
    int count = elements(shape, where);
    DType dtype = known(datatype, where);
    if (dtype == DType.STRING) {
      return Tensor.ofStrings(texts(split(raw, count, where), where), sizes(shape));
    }
    if (raw.size() != (long) count * dtype.size()) {
      throw input(where + ": " + raw.size() + " bytes, expected " + (long) count * dtype.size() + " for " + datatype + shape);
    }
    if (dtype == DType.BOOL) {
      for (int i = 0; i < count; i++) {
        if (raw.byteAt(i) < 0 || raw.byteAt(i) > 1) {
          throw input(where + ": a BOOL is a byte 0 or 1, not " + (raw.byteAt(i) & 0xff));
        }
      }
    }
    return Tensor.ofBytes(dtype, raw.asReadOnlyByteBuffer(), sizes(shape));
  }

  private static List<ByteString> split(ByteString raw, int count, String where) {
    if ((long) count * LENGTH > raw.size()) { // before anything is built: a short message cannot claim many elements
      throw input(
          where + ": " + raw.size() + " bytes cannot hold " + count + " BYTES elements; each takes 4 bytes and its content");
    }
    List<ByteString> out = new ArrayList<>(count);
    ByteBuffer in = raw.asReadOnlyByteBuffer().slice().order(ByteOrder.LITTLE_ENDIAN);
    while (in.hasRemaining() && out.size() <= count) {
      if (in.remaining() < LENGTH) {
        throw input(where + ": the length of element " + out.size() + " is cut short");
      }
      int size = in.getInt();
      if (size < 0 || size > in.remaining()) {
        throw input(where + ": element " + out.size() + " has " + Integer.toUnsignedString(size) + " bytes, " + in.remaining() + " are left");
      }
      out.add(raw.substring(in.position(), in.position() + size));
      in.position(in.position() + size);
    }
    if (out.size() != count) {
      throw input(where + ": " + (out.size() > count ? "more than " + count : out.size()) + " BYTES elements, expected " + count);
    }
    return out;
  }

  /** Reads text; InputError where an element is not UTF-8. */
  static String[] texts(List<ByteString> elements, String where) {
    String[] out = new String[elements.size()];
    for (int i = 0; i < out.length; i++) {
      if (!elements.get(i).isValidUtf8()) {
        throw input(where + ": element " + i + " is not UTF-8 text");
      }
      out[i] = elements.get(i).toStringUtf8();
    }
    return out;
  }

  /** Writes a tensor raw: a view of its bytes; a missing string is empty. */
  public static ByteString pack(Tensor tensor) {
    if (tensor.dtype() != DType.STRING) {
      return UnsafeByteOperations.unsafeWrap(tensor.bytes());
    }
    int size = 0;
    byte[][] all = new byte[tensor.size()][];
    for (int i = 0; i < all.length; i++) {
      all[i] = octets(tensor.strings()[i]);
      size = Math.addExact(size, LENGTH + all[i].length);
    }
    ByteBuffer out = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
    for (byte[] one : all) {
      out.putInt(one.length).put(one);
    }
    return UnsafeByteOperations.unsafeWrap(out.flip());
  }

  static byte[] octets(String text) {
    if (text == null) {
      return new byte[0];
    }
    try {
      ByteBuffer out = StandardCharsets.UTF_8.newEncoder().encode(java.nio.CharBuffer.wrap(text));
      byte[] exact = new byte[out.remaining()];
      out.get(exact);
      return exact;
    } catch (CharacterCodingException e) { // half a character; getBytes would write a question mark
      throw input("a text holds half a surrogate pair and has no UTF-8 form").withCause(e);
    }
  }

  /** Returns the flat row-major indices of missing strings, joined by commas, if there are any. */
  public static Optional<String> missing(Tensor tensor) {
    if (tensor.dtype() != DType.STRING) {
      return Optional.empty();
    }
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < tensor.size(); i++) {
      if (tensor.strings()[i] == null) {
        out.append(out.length() > 0 ? "," : "").append(i);
      }
    }
    return out.length() > 0 ? Optional.of(out.toString()) : Optional.empty();
  }
}
