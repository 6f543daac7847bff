package dev.mlbridge;

import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * What runs models of some formats; found by {@link java.util.ServiceLoader}. A library that mlbridge does not ship is
 * added by a jar with an implementation and its line in {@code META-INF/services/dev.mlbridge.Runtime}.
 */
public interface Runtime {
  /** Returns its key. */
  String name();

  /** Returns the formats it loads: {@code onnx}, {@code pmml}, {@code spark}, or one of its own. */
  Set<String> formats();

  /** Returns the URI schemes of the addresses it opens; most runtimes open files alone. */
  default Set<String> schemes() {
    return Set.of();
  }

  /**
   * Makes a session of what is served at an address.
   *
   * @param scheme one of {@link #schemes}
   * @param address what follows {@code scheme://}
   * @param options the caller's options as text
   */
  default Session connect(String scheme, String address, Map<String, String> options) {
    throw MlbridgeException.of(MlbridgeException.Kind.UNSUPPORTED, "the runtime '" + name() + "' opens no addresses");
  }

  /**
   * Makes a session of a file or folder.
   *
   * @param path the private copy of the artifact; nothing else than its content is known about it
   * @param signature the signature the caller knows already
   * @param options the caller's options as text
   */
  Session load(Path path, Optional<Signature> signature, Map<String, String> options);
}
