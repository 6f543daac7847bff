package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import java.util.Map;

/** A class whose constructor fails. */
public final class Broken implements Session {
  /** Fails. */
  public Broken() {
    throw new IllegalStateException("no weights here");
  }

  @Override
  public Signature signature() {
    throw new UnsupportedOperationException();
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    throw new UnsupportedOperationException();
  }
}
