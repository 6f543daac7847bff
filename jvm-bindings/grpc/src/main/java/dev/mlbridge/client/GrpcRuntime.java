package dev.mlbridge.client;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Opens models served on the Open Inference Protocol v2: {@code grpc://host:port/model[@version]}, {@code grpcs://} with
 * TLS.
 *
 * <p>Options: {@code token} (else the environment's MLBRIDGE_TOKEN), {@code root_certificates}, {@code client_key},
 * {@code client_certificate} (paths of PEM files), {@code server_name} (the name in the certificate), {@code timeout_s}
 * (of a call without one, 60), {@code connect_timeout_s} (10), {@code max_message_mib} (16: larger batches are sent in
 * parts), {@code signature} (in JSON, instead of the one the server tells).
 */
public final class GrpcRuntime implements Runtime {
  @Override
  public String name() {
    return "grpc";
  }

  @Override
  public Set<String> formats() {
    return Set.of();
  }

  @Override
  public Set<String> schemes() {
    return Set.of("grpc", "grpcs");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    throw MlbridgeException.of(Kind.UNSUPPORTED, "the runtime 'grpc' opens addresses, not files");
  }

  @Override
  public Session connect(String scheme, String address, Map<String, String> options) {
    Settings settings = Settings.of(options, System.getenv());
    Place place = Place.parse(address);
    boolean tls = scheme.equals("grpcs");
    if (settings.token().isPresent() && !tls && !place.local()) {
      throw MlbridgeException.of(Kind.INPUT, "a token would cross the network in the clear").withHint("use grpcs://");
    }
    Channels.Shared shared = Channels.take(place, tls, settings);
    try {
      Line line = new Line(shared, place, settings);
      Told told = Told.by(line, place, settings.connectTimeout());
      return new GrpcSession(line, place, told, settings);
    } catch (RuntimeException e) {
      shared.release();
      throw e;
    }
  }
}
