package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.StatusCode;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc;
import dev.mlbridge.grpc.v1.BridgeGrpc;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/** Who may call what: one table over every call, and what is not in it is denied. */
final class Access {
  /** Whether a call needs a token. */
  enum Role {
    /** Nothing is asked. */
    OPEN,
    /** The token is asked for, where there is one. */
    USE,
    /** No token helps. */
    DENIED
  }

  private static final Map<String, Role> TABLE = table();
  private static final int SHORTEST = 8; // characters of a token

  private final Optional<byte[]> wanted;

  Access(Optional<String> token) {
    wanted = token.map(Access::expected);
  }

  private static byte[] expected(String token) {
    if (token.length() < SHORTEST || !token.chars().allMatch(c -> c > 0x20 && c < 0x7f)) {
      throw MlbridgeException.of(Kind.INPUT, "a token needs at least " + SHORTEST + " printable ASCII characters, without spaces");
    }
    return ("Bearer " + token).getBytes(StandardCharsets.US_ASCII);
  }

  private static Map<String, Role> table() {
    Map<String, Role> out = new HashMap<>();
    String own = GRPCInferenceServiceGrpc.SERVICE_NAME + "/";
    for (String name : new String[] {"ServerLive", "ServerReady"}) {
      out.put(own + name, Role.OPEN);
    }
    String[] used = {
      "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer", "ModelConfig", "ModelStatistics"
    };
    for (String name : used) {
      out.put(own + name, Role.USE);
    }
    out.put(BridgeGrpc.SERVICE_NAME + "/Describe", Role.USE);
    for (String name : new String[] {"Check", "Watch", "List"}) {
      out.put("grpc.health.v1.Health/" + name, Role.OPEN);
    }
    for (String version : new String[] {"v1", "v1alpha"}) {
      out.put("grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo", Role.USE);
    }
    return out;
  }

  static Role role(String method) {
    return TABLE.getOrDefault(method, Role.DENIED);
  }

  /** Throws AccessError unless the call is allowed. */
  void check(Role role, Optional<String> authorization) {
    if (role == Role.OPEN) {
      return;
    }
    if (role == Role.DENIED) {
      throw MlbridgeException.of(Kind.ACCESS, "this call is not offered here");
    }
    if (wanted.isPresent()) {
      byte[] shown = authorization.orElse("").getBytes(StandardCharsets.UTF_8);
      if (!MessageDigest.isEqual(shown, wanted.get())) {
        throw MlbridgeException.of(Kind.ACCESS, "no token, or a wrong one").withCode(StatusCode.UNAUTHENTICATED);
      }
    }
  }
}
