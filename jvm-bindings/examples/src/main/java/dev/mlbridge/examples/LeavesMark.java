package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Creates the file that {@code /marker.txt} in its jar names as soon as its class is loaded: a stand-in for malice. */
public final class LeavesMark implements Session {
  static {
    try (InputStream in = LeavesMark.class.getResourceAsStream("/marker.txt")) {
      Files.createFile(Path.of(new String(in.readAllBytes(), StandardCharsets.UTF_8)));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public Signature signature() {
    return new Signature(List.of(), List.of(TensorSpec.of("y", DType.FLOAT64, Dim.of(1))));
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    return Map.of("y", Tensor.of(new double[1], 1));
  }
}
