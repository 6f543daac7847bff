package dev.mlbridge.frames;

import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.StatusCode;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Frames to bytes, row-major. */
public final class FrameWriter {
  private static final ByteBuffer ZEROS = ByteBuffer.allocateDirect(8).asReadOnlyBuffer();
  private static final int MISSING = 0xFFFFFFFF;

  private FrameWriter() {}

  /** Writes one frame as bytes. */
  public static ByteBuffer write(Frame frame) {
    List<ByteBuffer> parts = parts(frame);
    long size = parts.stream().mapToLong(ByteBuffer::remaining).sum();
    ByteBuffer out = ByteBuffer.allocate(Math.toIntExact(size)).order(ByteOrder.LITTLE_ENDIAN);
    parts.forEach(out::put);
    return out.flip();
  }

  /**
   * Writes one frame as buffers to be sent one after the other; numbers are not copied.
   *
   * @throws MlbridgeException with code OUT_OF_RANGE where the frame is too large
   */
  public static List<ByteBuffer> parts(Frame frame) {
    List<ByteBuffer> out = new ArrayList<>(2 + 3 * frame.tensors().size());
    ByteBuffer start = ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN);
    out.add(start);
    long size = 8;
    for (Map.Entry<String, Tensor> entry : frame.tensors().entrySet()) {
      Tensor tensor = entry.getValue();
      ByteBuffer data = tensor.dtype() == DType.STRING ? strings(entry.getKey(), tensor) : tensor.bytes();
      ByteBuffer head = head(entry.getKey(), tensor, data.remaining());
      size += head.remaining() + (data.remaining() + 7L & ~7L);
      out.add(head);
      if (data.hasRemaining()) {
        int padding = -data.remaining() & 7;
        out.add(data);
        if (padding > 0) {
          out.add(ZEROS.duplicate().limit(padding));
        }
      }
    }
    if (size > Integer.MAX_VALUE) {
      throw refuse("the frame would hold " + size + " bytes, at most 2**31 - 1 fit")
          .withCode(StatusCode.OUT_OF_RANGE);
    }
    start.putInt(FrameReader.MAGIC).put((byte) frame.type().code()).put((byte) 0).putShort((short) 0);
    start.putInt((int) size).putInt(frame.requestId()).putInt(frame.tensors().size()).putInt(0).flip();
    return out;
  }

  private static ByteBuffer head(String name, Tensor tensor, long length) {
    byte[] text = utf8(name, "the name");
    if (text.length == 0 || text.length > FrameReader.MAX_NAME || tensor.rank() > FrameReader.MAX_RANK) {
      throw refuse("a tensor's name holds 1 to 65536 bytes, its shape at most 32 axes");
    }
    int fixed = 4 + text.length + 4 + 7 & ~7;
    ByteBuffer out = ByteBuffer.allocate(fixed + 8 * tensor.rank() + 8).order(ByteOrder.LITTLE_ENDIAN);
    out.putInt(text.length).put(text).put((byte) tensor.dtype().frame()).put((byte) tensor.rank());
    out.position(fixed);
    for (int i = 0; i < tensor.rank(); i++) {
      out.putLong(tensor.dim(i));
    }
    return out.putLong(length).flip();
  }

  private static ByteBuffer strings(String name, Tensor tensor) {
    byte[][] pieces = new byte[tensor.strings().length][];
    long size = 0;
    for (int i = 0; i < pieces.length; i++) {
      String text = tensor.strings()[i];
      if (text != null) {
        pieces[i] = utf8(text, "tensor '" + name + "'");
        size += pieces[i].length;
      }
      size += 4;
    }
    if (size > Integer.MAX_VALUE) {
      throw refuse("tensor '" + name + "' holds more than 2**31 bytes of text").withCode(StatusCode.OUT_OF_RANGE);
    }
    ByteBuffer out = ByteBuffer.allocate((int) size).order(ByteOrder.LITTLE_ENDIAN);
    for (byte[] piece : pieces) {
      if (piece == null) {
        out.putInt(MISSING);
      } else {
        out.putInt(piece.length).put(piece);
      }
    }
    return out.flip();
  }

  private static byte[] utf8(String text, String what) {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (Character.isSurrogate(c)) {
        boolean pair =
            Character.isHighSurrogate(c) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1));
        if (!pair) {
          throw refuse(what + ": a lone surrogate has no UTF-8 form");
        }
        i++;
      }
    }
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static MlbridgeException refuse(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.INPUT, text);
  }
}
