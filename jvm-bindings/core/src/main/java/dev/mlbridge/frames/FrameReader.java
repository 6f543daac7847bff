package dev.mlbridge.frames;

import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** Bytes to frames. Refuses everything that {@code proto/FRAMES.md} does not allow, as ArtifactError. */
public final class FrameReader {
  /** Bytes of a header. */
  public static final int HEADER = 16;

  static final int MAGIC = 'M' | 'L' << 8 | 'B' << 16 | '1' << 24;
  static final int MAX_TENSORS = 1 << 16;
  static final int MAX_NAME = 1 << 16;
  static final int MAX_RANK = 32;
  private static final long MAX_ELEMENTS = 1L << 31;
  private static final int MISSING = 0xFFFFFFFF;

  private FrameReader() {}

  /** The fixed part of a frame. */
  public record Header(FrameType type, boolean columnMajor, int length, int requestId) {}

  /** Reads the 16 bytes of a header. */
  public static Header header(ByteBuffer in) {
    in.order(ByteOrder.LITTLE_ENDIAN);
    if (in.remaining() < HEADER) {
      throw refuse("a frame of " + in.remaining() + " bytes is shorter than its header of " + HEADER);
    }
    int magic = in.getInt();
    int type = Byte.toUnsignedInt(in.get());
    int flags = Byte.toUnsignedInt(in.get());
    int reserved = in.getShort();
    int length = in.getInt();
    int requestId = in.getInt();
    if (magic != MAGIC) {
      throw refuse("this is not a frame: its first bytes are not MLB1");
    }
    if (type < 1 || type > FrameType.values().length) {
      throw refuse("the frame's type is " + type + ", expected 1 to 9");
    }
    if ((flags & ~1) != 0 || reserved != 0) {
      throw refuse("the frame has unknown flags or reserved bits");
    }
    if (length < 0) {
      throw refuse("the frame announces 2**31 bytes or more");
    }
    return new Header(FrameType.values()[type - 1], flags == 1, length, requestId);
  }

  /** Reads exactly one frame; its tensors are views of the buffer. */
  public static Frame read(ByteBuffer in) {
    Header header = header(in);
    if (in.remaining() != header.length()) {
      throw refuse(
          "the frame's header announces " + header.length() + " bytes, " + in.remaining() + " follow");
    }
    return read(header, in);
  }

  /** Reads the payload that belongs to a header; its tensors are views of the buffer. */
  public static Frame read(Header header, ByteBuffer payload) {
    ByteBuffer in = payload.slice().order(ByteOrder.LITTLE_ENDIAN);
    need(in, 8);
    int count = in.getInt();
    if (in.getInt() != 0 || count < 0 || count > MAX_TENSORS) {
      throw refuse("the payload announces " + Integer.toUnsignedString(count) + " tensors, or has reserved bits");
    }
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    for (int i = 0; i < count; i++) {
      need(in, 4);
      long length = Integer.toUnsignedLong(in.getInt());
      if (length == 0 || length > MAX_NAME) {
        throw refuse("a tensor's name holds " + length + " bytes, expected 1 to " + MAX_NAME);
      }
      String name = text(in, (int) length, "a tensor's name");
      Tensor tensor = tensor(in, name, header.columnMajor());
      if (tensors.put(name, tensor) != null) {
        throw refuse("two tensors are named '" + name + "'");
      }
    }
    if (in.hasRemaining()) {
      throw refuse(in.remaining() + " bytes follow the last tensor");
    }
    return new Frame(header.type(), header.requestId(), tensors);
  }

  private static Tensor tensor(ByteBuffer in, String name, boolean columnMajor) {
    need(in, 4);
    int code = Byte.toUnsignedInt(in.get());
    int rank = Byte.toUnsignedInt(in.get());
    if (in.getShort() != 0 || rank > MAX_RANK) {
      throw refuse("tensor '" + name + "': rank " + rank + " (at most 32), or reserved bits");
    }
    skipPadding(in);
    need(in, 8 * rank + 8);
    long[] shape = new long[rank];
    for (int i = 0; i < rank; i++) {
      shape[i] = in.getLong();
    }
    long count = count(name, shape);
    long size = in.getLong();
    if (size < 0 || size > in.remaining()) {
      throw refuse("tensor '" + name + "': more bytes announced than " + in.remaining());
    }
    ByteBuffer data = in.slice(in.position(), (int) size).order(ByteOrder.LITTLE_ENDIAN);
    in.position(in.position() + (int) size);
    skipPadding(in);
    DType dtype =
        DType.ofFrame(code)
            .filter(d -> d != DType.BFLOAT16) // lives in ONNX graphs only
            .orElseThrow(() -> refuse("tensor '" + name + "': dtype code " + code + " is unknown here"));
    Tensor out = dtype == DType.STRING ? strings(name, shape, count, data) : numbers(name, dtype, shape, count, data);
    return columnMajor && rank > 1 ? Transpose.toRowMajor(out) : out;
  }

  private static long count(String name, long[] shape) {
    long bound = 1;
    long count = 1;
    for (long d : shape) {
      if (d < 0 || d > MAX_ELEMENTS || (bound *= Math.max(d, 1)) > MAX_ELEMENTS) {
        throw refuse("tensor '" + name + "': its shape is too large");
      }
      count *= d;
    }
    return count;
  }

  private static Tensor numbers(String name, DType dtype, long[] shape, long count, ByteBuffer data) {
    if (count * dtype.size() != data.remaining()) {
      throw refuse(
          "tensor '" + name + "': shape " + Arrays.toString(shape) + " of " + dtype + " needs "
              + count * dtype.size() + " bytes, not " + data.remaining());
    }
    if (dtype == DType.BOOL) {
      for (int i = 0; i < data.limit(); i++) {
        if ((data.get(i) & ~1) != 0) {
          throw refuse("tensor '" + name + "': a bool is neither 0 nor 1");
        }
      }
    }
    return Tensor.ofBytes(dtype, data, shape);
  }

  private static Tensor strings(String name, long[] shape, long count, ByteBuffer data) {
    if (4 * count > data.remaining()) {
      throw refuse("tensor '" + name + "': " + data.remaining() + " bytes cannot hold " + count + " strings");
    }
    String[] out = new String[(int) count];
    for (int i = 0; i < out.length; i++) {
      need(data, 4);
      int length = data.getInt();
      if (length == MISSING) {
        continue;
      }
      if (length < 0) {
        throw refuse("tensor '" + name + "': the data ends inside a string");
      }
      out[i] = text(data, length, "tensor '" + name + "'");
    }
    if (data.hasRemaining()) {
      throw refuse("tensor '" + name + "': " + data.remaining() + " bytes follow the last string");
    }
    return Tensor.ofStrings(out, shape);
  }

  private static String text(ByteBuffer in, int length, String what) {
    need(in, length);
    byte[] bytes = new byte[length];
    in.get(bytes);
    String out = new String(bytes, StandardCharsets.UTF_8);
    if (out.indexOf('\uFFFD') >= 0) { // a replacement: was it there, or is this not UTF-8?
      try {
        StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes));
      } catch (CharacterCodingException e) {
        throw refuse(what + " is not UTF-8");
      }
    }
    return out;
  }

  private static void skipPadding(ByteBuffer in) {
    int padding = -in.position() & 7;
    need(in, padding);
    for (int i = 0; i < padding; i++) {
      if (in.get() != 0) {
        throw refuse("padding is not zero");
      }
    }
  }

  private static void need(ByteBuffer in, int bytes) {
    if (in.remaining() < bytes) {
      throw refuse("the payload is cut off");
    }
  }

  private static MlbridgeException refuse(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.ARTIFACT, text);
  }
}
