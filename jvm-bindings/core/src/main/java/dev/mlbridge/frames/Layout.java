package dev.mlbridge.frames;

import dev.mlbridge.DType;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.Map;
import java.util.Optional;

/**
 * Where the tensors of a frame lie: the next frame like it is compared instead of parsed, patched instead of written.
 *
 * <p>Frames with text or booleans have no layout: their bytes are looked at each time.
 */
final class Layout {
  private static final int ID = 12; // where the request id stands
  private static final int ID_END = 16;

  private record Place(String name, DType dtype, long[] shape, int at, int length) {
    boolean holds(String other, Tensor tensor) {
      if (!name.equals(other) || tensor.dtype() != dtype || tensor.rank() != shape.length) {
        return false;
      }
      for (int i = 0; i < shape.length; i++) {
        if (tensor.dim(i) != shape[i]) {
          return false;
        }
      }
      return true;
    }
  }

  private record Fixed(int at, ByteBuffer bytes) {}

  private final FrameType type;
  private final int size;
  private final Place[] places;

  private Layout(FrameType type, int size, Place[] places) {
    this.type = type;
    this.size = size;
    this.places = places;
  }

  /** Returns the layout of a frame, where it has one. */
  static Optional<Layout> of(Frame frame) {
    Place[] places = new Place[frame.tensors().size()];
    long at = ID_END + 8;
    int i = 0;
    for (Map.Entry<String, Tensor> entry : frame.tensors().entrySet()) {
      Tensor tensor = entry.getValue();
      if (tensor.dtype() == DType.STRING || tensor.dtype() == DType.BOOL) {
        return Optional.empty();
      }
      int name = entry.getKey().getBytes(StandardCharsets.UTF_8).length;
      int length = tensor.bytes().remaining();
      at += (4 + name + 4 + 7 & ~7) + 8 * tensor.rank() + 8;
      if (at + length > Integer.MAX_VALUE - 8) {
        return Optional.empty();
      }
      places[i++] = new Place(entry.getKey(), tensor.dtype(), tensor.shape(), (int) at, length);
      at += length + 7L & ~7L;
    }
    return Optional.of(new Layout(frame.type(), (int) at, places));
  }

  /** Returns the bytes of a whole frame. */
  int size() {
    return size;
  }

  /** Returns whether a frame would differ from one of this layout in its request id and its numbers alone. */
  boolean fits(Frame frame) {
    if (frame.type() != type || frame.tensors().size() != places.length) {
      return false;
    }
    int i = 0;
    for (Map.Entry<String, Tensor> entry : frame.tensors().entrySet()) {
      if (!places[i++].holds(entry.getKey(), entry.getValue())) {
        return false;
      }
    }
    return true;
  }

  /** Turns the bytes of a frame of this layout, from 0, into those of another. */
  void patch(ByteBuffer bytes, Frame frame) {
    bytes.putInt(ID, frame.requestId());
    int i = 0;
    for (Tensor tensor : frame.tensors().values()) {
      Place place = places[i++];
      bytes.put(place.at, tensor.bytes(), 0, place.length);
    }
  }

  /** A frame that was read, for the next one that comes to the same place of the same buffer. */
  static final class Known {
    private final Layout layout;
    private final Map<String, Tensor> tensors;
    private final ByteBuffer buffer;
    private final int start;
    private final Fixed[] fixed;

    /** Keeps a frame whose tensors are views of the buffer. */
    Known(Layout layout, Frame frame, ByteBuffer buffer, int start) {
      this.layout = layout;
      this.tensors = Collections.unmodifiableMap(frame.tensors());
      this.buffer = buffer;
      this.start = start;
      this.fixed = new Fixed[layout.places.length + 2];
      fixed[0] = fixed(0, ID);
      int from = ID_END;
      for (int i = 0; i < layout.places.length; i++) {
        fixed[i + 1] = fixed(from, layout.places[i].at);
        from = layout.places[i].at + layout.places[i].length;
      }
      fixed[fixed.length - 1] = fixed(from, layout.size);
    }

    private Fixed fixed(int from, int to) {
      ByteBuffer copy = ByteBuffer.allocateDirect(to - from).put(0, buffer, start + from, to - from);
      return new Fixed(start + from, copy);
    }

    /** Returns the frame that begins at the buffer's position and moves behind it, if it is like the one kept. */
    Optional<Frame> read(ByteBuffer in) {
      if (in != buffer || in.position() != start || in.remaining() < layout.size) {
        return Optional.empty();
      }
      for (Fixed part : fixed) {
        if (in.slice(part.at, part.bytes.limit()).mismatch(part.bytes) >= 0) {
          return Optional.empty();
        }
      }
      in.position(start + layout.size);
      return Optional.of(new Frame(layout.type, in.getInt(start + ID), tensors));
    }
  }
}
