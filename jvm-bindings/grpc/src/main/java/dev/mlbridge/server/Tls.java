package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import io.grpc.ServerCredentials;
import io.grpc.TlsServerCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;

/** PEM files: a private key in PKCS#8, its certificate chain, and the authority of clients' certificates. */
record Tls(Path key, Path certificate, Optional<Path> clientAuthority) {
  ServerCredentials credentials() {
    try {
      TlsServerCredentials.Builder out = TlsServerCredentials.newBuilder().keyManager(certificate.toFile(), key.toFile());
      if (clientAuthority.isPresent()) {
        out.trustManager(clientAuthority.get().toFile()).clientAuth(TlsServerCredentials.ClientAuth.REQUIRE);
      }
      return out.build();
    } catch (IOException e) {
      throw MlbridgeException.of(Kind.INPUT, "tls: " + e.getMessage()).withCause(e);
    }
  }
}
