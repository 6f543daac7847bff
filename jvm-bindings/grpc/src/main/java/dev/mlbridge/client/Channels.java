package dev.mlbridge.client;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.File;
import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/** The connections of this program: models behind one address with the same credentials share one. */
final class Channels {
  private static final Map<Key, Shared> OPEN = new HashMap<>();

  private Channels() {}

  private record Key(
      String target, boolean tls, Optional<String> roots, Optional<String> key, Optional<String> certificate, Optional<String> name) {}

  /** One connection and how many use it. */
  static final class Shared {
    private final Key key;
    private final ManagedChannel channel;
    private int users;

    private Shared(Key key, ManagedChannel channel) {
      this.key = key;
      this.channel = channel;
    }

    /** Returns the channel. After a failure gRPC waits ever longer before it tries again: a caller's wish ends that. */
    ManagedChannel channel() {
      if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
        channel.resetConnectBackoff();
      }
      return channel;
    }

    void release() {
      synchronized (OPEN) {
        if (--users > 0) {
          return;
        }
        OPEN.remove(key);
      }
      channel.shutdownNow();
    }
  }

  static Shared take(Place place, boolean tls, Settings settings) {
    Key key =
        new Key(
            place.target(),
            tls,
            tls ? settings.rootCertificates() : Optional.empty(),
            settings.clientKey(),
            settings.clientCertificate(),
            settings.serverName());
    synchronized (OPEN) {
      Shared shared = OPEN.computeIfAbsent(key, k -> new Shared(k, open(k)));
      shared.users++;
      return shared;
    }
  }

  private static ManagedChannel open(Key key) {
    NettyChannelBuilder builder =
        NettyChannelBuilder.forTarget("dns:///" + key.target, key.tls ? credentials(key) : InsecureChannelCredentials.create())
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .defaultServiceConfig(RETRIES)
            .enableRetry();
    key.name.ifPresent(builder::overrideAuthority);
    return builder.build();
  }

  private static ChannelCredentials credentials(Key key) {
    try {
      TlsChannelCredentials.Builder out = TlsChannelCredentials.newBuilder();
      if (key.roots.isPresent()) {
        out.trustManager(new File(key.roots.get()));
      }
      if (key.key.isPresent() && key.certificate.isPresent()) {
        out.keyManager(new File(key.certificate.get()), new File(key.key.get()));
      }
      return out.build();
    } catch (IOException e) {
      throw MlbridgeException.of(Kind.INPUT, "TLS: " + e.getMessage()).withCause(e);
    }
  }

  /** What was refused before any work is repeated; gRPC itself repeats what never left, and nothing else is safe to. */
  private static final Map<String, Object> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(Map.of("service", "inference.GRPCInferenceService"), Map.of("service", "mlbridge.v1.Bridge")),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 4.0,
                      "initialBackoff", "0.02s",
                      "maxBackoff", "1s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("RESOURCE_EXHAUSTED")))));
}
