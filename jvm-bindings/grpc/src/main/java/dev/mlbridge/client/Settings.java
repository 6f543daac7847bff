package dev.mlbridge.client;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/** The options of a served model, under the names they have in Python. */
record Settings(
    Optional<String> token,
    Optional<String> rootCertificates,
    Optional<String> clientKey,
    Optional<String> clientCertificate,
    Optional<String> serverName,
    Optional<Signature> signature,
    Duration timeout,
    Duration connectTimeout,
    long maxMessageBytes) {
  private static final Set<String> KNOWN =
      Set.of(
          "token",
          "root_certificates",
          "client_key",
          "client_certificate",
          "server_name",
          "signature",
          "timeout_s",
          "connect_timeout_s",
          "max_message_mib");

  static Settings of(Map<String, String> options, Map<String, String> environment) {
    TreeSet<String> unknown = new TreeSet<>(options.keySet());
    unknown.removeAll(KNOWN);
    if (!unknown.isEmpty()) {
      throw MlbridgeException.of(Kind.INPUT, "the runtime 'grpc' has no option " + unknown + "; there are " + new TreeSet<>(KNOWN));
    }
    return new Settings(
        first(options.get("token"), environment.get("MLBRIDGE_TOKEN")),
        first(options.get("root_certificates"), environment.get("MLBRIDGE_ROOT_CERTIFICATES")),
        Optional.ofNullable(options.get("client_key")),
        Optional.ofNullable(options.get("client_certificate")),
        Optional.ofNullable(options.get("server_name")),
        Optional.ofNullable(options.get("signature")).map(Signature::fromJson),
        seconds(options, "timeout_s", 60),
        seconds(options, "connect_timeout_s", 10),
        (long) (number(options, "max_message_mib", 16) * (1 << 20)));
  }

  private static Optional<String> first(String named, String fallback) {
    return Optional.ofNullable(named).or(() -> Optional.ofNullable(fallback));
  }

  private static Duration seconds(Map<String, String> options, String key, double usual) {
    return Duration.ofNanos((long) (Math.min(number(options, key, usual), 1e9) * 1e9));
  }

  private static double number(Map<String, String> options, String key, double usual) {
    String text = options.get(key);
    try {
      double out = text == null ? usual : Double.parseDouble(text);
      if (out > 0) {
        return out;
      }
    } catch (NumberFormatException e) {
      // told below
    }
    throw MlbridgeException.of(Kind.INPUT, "the option '" + key + "' must be a positive number, not '" + text + "'");
  }
}
