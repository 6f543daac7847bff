import py4j.GatewayServer;

/** The other reference: a byte array there and back through py4j. */
public final class Py4jEcho {
  public byte[] echo(byte[] bytes) {
    return bytes;
  }

  public static void main(String[] args) throws Exception {
    GatewayServer server =
        new GatewayServer.GatewayServerBuilder(new Py4jEcho()).javaPort(0).authToken(args[0]).build();
    server.start();
    System.out.println(server.getListeningPort());
    System.in.read();
    System.exit(0);
  }
}
