package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import io.grpc.KnownLength;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Optional;

/** A message as it came: its bytes, or why they could not be read. */
record Body(byte[] bytes, Optional<MlbridgeException> problem) {
  static final MethodDescriptor.Marshaller<Body> MARSHALLER =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(Body body) {
          return new ByteArrayInputStream(body.bytes);
        }

        @Override
        public Body parse(InputStream in) {
          return read(in);
        }
      };

  private static Body read(InputStream in) {
    try {
      byte[] all = in instanceof KnownLength ? in.readNBytes(in.available()) : in.readAllBytes();
      return new Body(all, Optional.empty());
    } catch (StatusRuntimeException tooLarge) { // a small message that decompresses to a large one
      return broken(MlbridgeException.of(Kind.OVERLOADED, "the message is larger than this server accepts").withCause(tooLarge));
    } catch (IOException e) {
      return broken(MlbridgeException.of(Kind.INPUT, "the message does not decompress").withCause(e));
    }
  }

  private static Body broken(MlbridgeException problem) {
    return new Body(new byte[0], Optional.of(problem));
  }
}
