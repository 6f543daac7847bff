package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.Trust;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** Answers what a model served elsewhere answers: the parameter {@code uri} says where, the others are its options. */
public final class Relay implements Session {
  private static final Set<String> OPTIONS =
      Set.of("token", "root_certificates", "client_key", "client_certificate", "timeout_s", "connect_timeout_s");

  private final Model served;

  /** Opens the served model. */
  public Relay(Map<String, String> options) {
    Map<String, String> rest = new HashMap<>(options);
    rest.keySet().retainAll(OPTIONS); // not what the worker itself was told
    served = Models.load(options.get("uri"), Trust.DATA, rest);
  }

  @Override
  public Signature signature() {
    return served.signature();
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    return served.run(feeds, call);
  }

  @Override
  public int maxConcurrency() {
    return served.maxConcurrency();
  }

  @Override
  public void close() {
    served.close();
  }
}
