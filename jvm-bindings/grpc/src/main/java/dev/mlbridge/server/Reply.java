package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.StatusCode;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * What a failed call answers: a code, a fixed text with the caller's own names, and trailing metadata. What went wrong
 * inside is logged under a correlation id and never sent.
 */
record Reply(StatusCode code, String text, String error, Optional<String> correlation, OptionalLong pushbackMs) {
  private static final System.Logger LOG = System.getLogger("mlbridge.server");
  private static final SecureRandom RANDOM = new SecureRandom();
  private static final int MAX_TEXT = 2000; // UTF-8 bytes: percent-encoded it still fits into the metadata that clients accept
  private static final Metadata.Key<String> ERROR = key("mlbridge-error");
  private static final Metadata.Key<String> CORRELATION = key("mlbridge-correlation-id");
  private static final Metadata.Key<String> PUSHBACK = key("grpc-retry-pushback-ms");
  private static final Map<Kind, String> INSIDE = // what may be told of a failure inside a model; all else is INTERNAL
      Map.of(
          Kind.TIMEOUT, "the deadline passed",
          Kind.CANCELLED, "the call was cancelled",
          Kind.OVERLOADED, "the model is overloaded; try again later",
          Kind.UNSUPPORTED, "the model does not support this request",
          Kind.BRIDGE, "the model's worker failed; try again",
          Kind.WORKER_DIED, "the model's worker failed; try again",
          Kind.UNAVAILABLE, "the model is not available",
          Kind.MISSING_DEPENDENCY, "the model is not available");

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  /** Replies to an error about the caller's own request: its text is for the caller. */
  static Reply refusal(MlbridgeException e) {
    String text = e.hint().map(hint -> e.getMessage() + "\n  hint: " + hint).orElse(e.getMessage());
    return new Reply(e.code(), cut(text), e.kind().className(), Optional.empty(), OptionalLong.empty());
  }

  /** As {@link #refusal(MlbridgeException)}, of a full queue: the client should wait so long. */
  static Reply refusal(MlbridgeException e, long pushbackMs) {
    Reply plain = refusal(e);
    return e.kind() != Kind.OVERLOADED
        ? plain
        : new Reply(plain.code, plain.text, plain.error, plain.correlation, OptionalLong.of(pushbackMs));
  }

  /** Replies to a failure while a model ran: by place, whatever it threw. The cause goes to the log under the model's name. */
  static Reply inside(Throwable e, String where) {
    Kind kind = e instanceof MlbridgeException own && INSIDE.containsKey(own.kind()) ? own.kind() : Kind.INFERENCE;
    String text = INSIDE.getOrDefault(kind, "the model failed");
    if (kind == Kind.TIMEOUT || kind == Kind.CANCELLED || kind == Kind.OVERLOADED) {
      return new Reply(kind.code(), text, kind.className(), Optional.empty(), OptionalLong.empty());
    }
    byte[] octets = new byte[8];
    RANDOM.nextBytes(octets);
    String correlation = HexFormat.of().formatHex(octets);
    LOG.log(System.Logger.Level.ERROR, where + " failed, correlation id " + correlation, e);
    return new Reply(
        kind.code(), text + " (correlation id " + correlation + ")", kind.className(), Optional.of(correlation), OptionalLong.empty());
  }

  private static String cut(String text) {
    byte[] octets = text.getBytes(StandardCharsets.UTF_8);
    if (octets.length <= MAX_TEXT) {
      return text;
    }
    int end = MAX_TEXT;
    while ((octets[end] & 0xc0) == 0x80) { // not inside a character
      end--;
    }
    return new String(octets, 0, end, StandardCharsets.UTF_8) + " …";
  }

  Status status() {
    return Status.fromCodeValue(code.number()).withDescription(text);
  }

  Metadata trailers() {
    Metadata out = new Metadata();
    out.put(ERROR, error);
    correlation.ifPresent(id -> out.put(CORRELATION, id));
    pushbackMs.ifPresent(ms -> out.put(PUSHBACK, Long.toString(ms)));
    return out;
  }

  StatusRuntimeException exception() {
    return status().asRuntimeException(trailers());
  }
}
