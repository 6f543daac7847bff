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

  /**
   * Makes a session of a file or folder.
   *
   * @param path the private copy of the artifact; nothing else than its content is known about it
   * @param signature the signature the caller knows already
   * @param options the caller's options as text
   */
  Session load(Path path, Optional<Signature> signature, Map<String, String> options);
}
