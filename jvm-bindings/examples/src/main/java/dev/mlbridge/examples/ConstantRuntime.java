package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** A runtime that a user adds on the class path: its models are text files that hold one number, the answer to all. */
public final class ConstantRuntime implements Runtime {
  @Override
  public String name() {
    return "constant";
  }

  @Override
  public Set<String> formats() {
    return Set.of("constant");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    double value;
    try {
      value = Double.parseDouble(Files.readString(path).strip());
    } catch (IOException | NumberFormatException e) {
      throw MlbridgeException.of(MlbridgeException.Kind.ARTIFACT, "the file holds no number: " + e.getMessage());
    }
    Signature own =
        new Signature(
            List.of(TensorSpec.of("x", DType.FLOAT64, Dim.ROWS)), List.of(TensorSpec.of("y", DType.FLOAT64, Dim.ROWS)));
    return new Session() {
      @Override
      public Signature signature() {
        return own;
      }

      @Override
      public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
        double[] out = new double[feeds.get("x").size()];
        Arrays.fill(out, value);
        return Map.of("y", Tensor.of(out, out.length));
      }
    };
  }
}
