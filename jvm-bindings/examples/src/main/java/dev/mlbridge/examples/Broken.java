package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import java.util.Map;

/** A class whose constructor fails: as the parameter {@code kind} says, else as any class may. */
public final class Broken implements Session {
  /** Fails. */
  public Broken(Map<String, String> options) {
    if (options.containsKey("kind")) {
      throw MlbridgeException.of(MlbridgeException.Kind.valueOf(options.get("kind")), "said by the session").withHint("as it said");
    }
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
