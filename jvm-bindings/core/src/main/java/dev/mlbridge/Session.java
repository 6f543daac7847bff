package dev.mlbridge;

import java.util.Map;

/**
 * A model made ready to run: what a user's class implements to be reached from Python and R.
 *
 * <p>A class in a jar needs a public constructor without parameters, or one that takes a {@code Map<String, String>}
 * of options. It is called by several threads at once only if {@link #maxConcurrency} says so.
 */
public interface Session extends AutoCloseable {
  /** Returns the names, dtypes, shapes and rules of the inputs and outputs. */
  Signature signature();

  /**
   * Runs once.
   *
   * @param feeds tensors that satisfy the signature; not to be changed, and not to be kept after the call
   * @param call the outputs asked for and the time left
   * @return the outputs by name; more than were asked for does no harm
   * @throws Exception whatever the model raises; the caller sees an InferenceError with this text
   */
  Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws Exception;

  /** Returns how many calls may be inside {@link #run} at once. */
  default int maxConcurrency() {
    return 1;
  }

  /** Frees what is owned; harmless when repeated. */
  @Override
  default void close() {}
}
