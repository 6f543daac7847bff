package dev.mlbridge.worker;

import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameChannel;
import dev.mlbridge.frames.FrameType;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * The worker process: connects back to its parent and hosts models until a connection ends.
 *
 * <p>Address, number of lanes and whether there is a control connection come from the environment, the token from
 * standard input; see {@code proto/FRAMES.md}. Standard output is left to the models: it is a log.
 */
public final class Main {
  private static final int TOKEN = 64;

  private Main() {}

  /** Starts the worker; takes no arguments. */
  public static void main(String[] args) throws IOException {
    String address = variable("MLBRIDGE_ADDRESS");
    int lanes = Integer.parseInt(variable("MLBRIDGE_LANES"));
    boolean control = variable("MLBRIDGE_CONTROL").equals("1");
    byte[] token = System.in.readNBytes(TOKEN);
    if (token.length != TOKEN) {
      throw new IOException("standard input ended inside the token");
    }
    Host host = new Host();
    List<Lane> all = new ArrayList<>();
    for (int i = 0; i < lanes; i++) {
      all.add(new Lane(connect(address, token, "lane", i), host));
    }
    Optional<FrameChannel> orders =
        control ? Optional.of(connect(address, token, "control", -1)) : Optional.empty();
    for (int i = 1; i < lanes; i++) {
      Thread thread = new Thread(all.get(i)::serve, "mlbridge-lane-" + i);
      thread.setDaemon(true);
      thread.start();
    }
    orders.ifPresent(channel -> listen(channel, all));
    all.get(0).serve();
  }

  private static String variable(String name) {
    return Optional.ofNullable(System.getenv(name))
        .orElseThrow(() -> new IllegalStateException(name + " is not set; mlbridge starts this program"));
  }

  private static FrameChannel connect(String address, byte[] token, String role, int lane) throws IOException {
    FrameChannel channel = new FrameChannel(open(address));
    channel.writeRaw(token);
    Frame.Fields hello =
        new Frame.Fields()
            .put("protocol", 1)
            .put("runtime", "jvm")
            .put("language_version", System.getProperty("java.version"))
            .put("pid", ProcessHandle.current().pid())
            .put("role", role);
    if (lane >= 0) {
      hello.put("lane", lane);
    }
    channel.write(hello.frame(FrameType.HELLO, 0));
    return channel;
  }

  private static SocketChannel open(String address) throws IOException {
    String rest = address.substring(address.indexOf(':') + 1);
    if (address.startsWith("unix:")) {
      SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      channel.connect(UnixDomainSocketAddress.of(rest));
      return channel;
    }
    int colon = rest.lastIndexOf(':');
    SocketAddress to =
        new InetSocketAddress(rest.substring(0, colon), Integer.parseInt(rest.substring(colon + 1)));
    SocketChannel channel = SocketChannel.open(to);
    channel.socket().setTcpNoDelay(true);
    return channel;
  }

  private static void listen(FrameChannel channel, List<Lane> lanes) {
    Thread thread =
        new Thread(
            () -> {
              try {
                while (true) {
                  Frame frame = channel.read();
                  if (frame.type() == FrameType.CANCEL) {
                    int request = (int) frame.integer("request").orElse(0);
                    long lane = frame.integer("lane").orElse(-1);
                    for (int i = 0; i < lanes.size(); i++) {
                      if (lane < 0 || lane == i) {
                        lanes.get(i).cancel(request);
                      }
                    }
                  }
                }
              } catch (IOException | RuntimeException ended) {
                System.exit(0);
              }
            },
            "mlbridge-control");
    thread.setDaemon(true);
    thread.start();
  }

  /** Writes one line of the log: 3 error, 4 warning, 6 info, 7 debug. */
  static void log(int level, String text) {
    byte[] line = ("<" + level + ">" + text.replace('\n', ' ') + "\n").getBytes(StandardCharsets.UTF_8);
    System.err.write(line, 0, line.length);
    System.err.flush();
  }
}
