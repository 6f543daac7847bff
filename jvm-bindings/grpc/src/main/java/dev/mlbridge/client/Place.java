package dev.mlbridge.client;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Where a served model is: {@code host:port/model[@version]}. */
record Place(String host, int port, String model, String version) {
  private static final Pattern FORM =
      Pattern.compile("(\\[[0-9A-Fa-f:.]+\\]|[\\w.\\-]+):([0-9]{1,5})/([^/@?#\\s]+)(?:@([0-9]{1,18}))?");

  /** Reads an address; InputError if it holds anything else, a secret for example. */
  static Place parse(String text) {
    Matcher found = FORM.matcher(text);
    if (!found.matches() || Integer.parseInt(found.group(2)) > 65535) {
      throw MlbridgeException.of(Kind.INPUT, "a served model is written grpc://host:port/model or grpc://host:port/model@version")
          .withHint("tokens go into the option 'token' or the environment variable MLBRIDGE_TOKEN");
    }
    return new Place(
        found.group(1), Integer.parseInt(found.group(2)), found.group(3), Optional.ofNullable(found.group(4)).orElse(""));
  }

  String target() {
    return host + ":" + port;
  }

  /** Whether it is this machine: no other name than localhost is looked up for that. */
  boolean local() {
    if (host.equals("localhost")) {
      return true;
    }
    boolean literal = host.startsWith("[") || host.matches("[0-9.]+");
    try {
      return literal && InetAddress.getByName(host).isLoopbackAddress();
    } catch (UnknownHostException e) {
      return false;
    }
  }

  @Override
  public String toString() {
    return "grpc://" + target() + "/" + model;
  }
}
