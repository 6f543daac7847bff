package dev.mlbridge.frames;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.Optional;

/**
 * One connection that carries frames; used by one thread at a time. The tensors of a frame are views of its buffer and
 * end with the next {@link #read}.
 */
public final class FrameChannel implements AutoCloseable {
  private static final int FIRST = 1 << 16;
  private static final int KEEP = 1 << 26; // a larger buffer is given back after the frame it was made for
  private static final int JOIN_BELOW = 1 << 16; // one copy costs less than a scattered write

  private final SocketChannel channel;
  private ByteBuffer in = ByteBuffer.allocateDirect(FIRST).order(ByteOrder.LITTLE_ENDIAN).limit(0);
  private final ByteBuffer out = ByteBuffer.allocateDirect(JOIN_BELOW).order(ByteOrder.LITTLE_ENDIAN);
  private Optional<Layout.Known> heard = Optional.empty(); // the last frame that was read
  private Optional<Layout> told = Optional.empty(); // of the frame whose bytes `out` holds

  /** Takes over a blocking connection. */
  public FrameChannel(SocketChannel channel) {
    this.channel = channel;
  }

  /**
   * Receives one frame.
   *
   * @throws EOFException if the other side closed the connection
   */
  public Frame read() throws IOException {
    if (!in.hasRemaining()) {
      if (in.capacity() > KEEP) {
        in = ByteBuffer.allocateDirect(FIRST).order(ByteOrder.LITTLE_ENDIAN);
        heard = Optional.empty();
      }
      in.position(0).limit(0);
    }
    fill(FrameReader.HEADER);
    Optional<Frame> again = heard.isPresent() ? heard.get().read(in) : Optional.empty();
    return again.isPresent() ? again.get() : parse();
  }

  private Frame parse() throws IOException {
    FrameReader.Header header = FrameReader.header(in);
    fill(header.length());
    ByteBuffer payload = in.slice(in.position(), header.length());
    int start = in.position() - FrameReader.HEADER;
    in.position(in.position() + header.length());
    Frame frame = FrameReader.read(header, payload);
    heard =
        header.columnMajor() || start < 0 // moved while it came
            ? Optional.empty()
            : Layout.of(frame).map(layout -> new Layout.Known(layout, frame, in, start));
    return frame;
  }

  /** Makes so many bytes available, behind the position, at an address that is a multiple of 8. */
  private void fill(int bytes) throws IOException {
    if (in.remaining() >= bytes && (in.position() & 7) == 0) {
      return;
    }
    if (in.capacity() < bytes) {
      ByteBuffer larger = ByteBuffer.allocateDirect(bytes).order(ByteOrder.LITTLE_ENDIAN);
      in = larger.put(in).flip();
    } else if (in.position() + bytes > in.capacity() || (in.position() & 7) != 0) {
      in.compact().flip();
    }
    int start = in.position();
    int end = in.limit();
    in.limit(in.capacity()).position(end);
    while (end - start < bytes) {
      int n = channel.read(in);
      if (n < 0) {
        throw new EOFException("the other side closed the connection");
      }
      end += n;
    }
    in.limit(end).position(start);
  }

  /** Sends one frame. */
  public void write(Frame frame) throws IOException {
    if (told.isPresent() && told.get().fits(frame)) {
      told.get().patch(out, frame);
      send(told.get().size());
      return;
    }
    List<ByteBuffer> parts = FrameWriter.parts(frame);
    long size = 0;
    for (ByteBuffer part : parts) {
      size += part.remaining();
    }
    if (size <= JOIN_BELOW) {
      out.clear();
      parts.forEach(out::put);
      told = Layout.of(frame);
      send((int) size);
      return;
    }
    ByteBuffer[] all = parts.toArray(ByteBuffer[]::new);
    int first = 0;
    while (first < all.length) {
      channel.write(all, first, Math.min(all.length - first, 16));
      while (first < all.length && !all[first].hasRemaining()) {
        first++;
      }
    }
  }

  private void send(int size) throws IOException {
    out.position(0).limit(size);
    while (out.hasRemaining()) {
      channel.write(out);
    }
  }

  /** Sends bytes that are no frame: the token. */
  public void writeRaw(byte[] bytes) throws IOException {
    ByteBuffer raw = ByteBuffer.wrap(bytes);
    while (raw.hasRemaining()) {
      channel.write(raw);
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
