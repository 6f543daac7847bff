package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Where a server listens. */
record Address(String host, int port) {
  private static final Pattern FORM = Pattern.compile("(?:\\[([0-9A-Fa-f:.]+)\\]|([\\w.\\-]+)):([0-9]{1,5})");

  /** Parts {@code host:port}; {@code [::1]:8001} for IPv6. */
  static Address parse(String text) {
    Matcher found = FORM.matcher(text);
    if (!found.matches() || Integer.parseInt(found.group(3)) > 65535) {
      throw MlbridgeException.of(Kind.INPUT, "address '" + text + "': expected host:port")
          .withHint("127.0.0.1:8001; port 0 takes any free one");
    }
    return new Address(found.group(1) != null ? found.group(1) : found.group(2), Integer.parseInt(found.group(3)));
  }

  /** Whether only this machine reaches it: no other name than localhost is looked up for that. */
  boolean local() {
    if (host.equals("localhost")) {
      return true;
    }
    boolean literal = host.contains(":") || host.matches("[0-9.]+");
    try {
      return literal && InetAddress.getByName(host).isLoopbackAddress();
    } catch (UnknownHostException e) {
      return false;
    }
  }

  InetSocketAddress socket() {
    return new InetSocketAddress(host, port);
  }

  Address withPort(int other) {
    return new Address(host, other);
  }

  @Override
  public String toString() {
    return (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
  }
}
