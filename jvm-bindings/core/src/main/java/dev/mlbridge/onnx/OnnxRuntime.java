package dev.mlbridge.onnx;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Runs ONNX graphs by ONNX Runtime's Java artifact, which the user puts on the class path. */
public final class OnnxRuntime implements Runtime {
  @Override
  public String name() {
    return "onnx";
  }

  @Override
  public Set<String> formats() {
    return Set.of("onnx");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    byte[] bytes = bytes(path);
    GraphCheck.check(bytes);
    try {
      return OnnxSession.open(bytes, signature, options);
    } catch (NoClassDefFoundError e) {
      throw MlbridgeException.of(Kind.MISSING_DEPENDENCY, "ONNX Runtime is not on the class path")
          .withHint("add com.microsoft.onnxruntime:onnxruntime, 1.20 or newer")
          .withCause(e);
    }
  }

  private static byte[] bytes(Path path) {
    try {
      return Files.readAllBytes(path);
    } catch (IOException | OutOfMemoryError e) {
      throw MlbridgeException.of(Kind.ARTIFACT, path + ": cannot be read: " + e.getMessage()).withCause(e);
    }
  }
}
