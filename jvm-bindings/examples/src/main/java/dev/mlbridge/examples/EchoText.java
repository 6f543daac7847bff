package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.List;
import java.util.Map;

/** Answers a text column as it came, missing values included. */
public final class EchoText implements Session {
  @Override
  public Signature signature() {
    return new Signature(
        List.of(TensorSpec.of("text", DType.STRING, Dim.ROWS, Dim.of(1)).allowingMissing()),
        List.of(TensorSpec.of("echo", DType.STRING, Dim.ROWS).allowingMissing()));
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    Tensor text = feeds.get("text");
    return Map.of("echo", text.reshape(text.dim(0)));
  }
}
