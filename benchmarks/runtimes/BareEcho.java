import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;

/** The reference: a Unix socket, a length of 8 bytes, so many bytes, and the same bytes back. */
public final class BareEcho {
  private BareEcho() {}

  public static void main(String[] args) throws IOException {
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(UnixDomainSocketAddress.of(Path.of(args[0])));
      System.out.println("ready");
      try (SocketChannel channel = server.accept()) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16).order(ByteOrder.LITTLE_ENDIAN);
        ByteBuffer head = ByteBuffer.allocateDirect(8).order(ByteOrder.LITTLE_ENDIAN);
        while (true) {
          head.clear();
          while (head.hasRemaining()) {
            if (channel.read(head) < 0) {
              return;
            }
          }
          int size = (int) head.getLong(0);
          if (buffer.capacity() < size) {
            buffer = ByteBuffer.allocateDirect(size).order(ByteOrder.LITTLE_ENDIAN);
          }
          buffer.clear().limit(size);
          while (buffer.hasRemaining()) {
            if (channel.read(buffer) < 0) {
              return;
            }
          }
          buffer.flip();
          while (buffer.hasRemaining()) {
            channel.write(buffer);
          }
        }
      }
    }
  }
}
