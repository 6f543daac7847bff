package dev.mlbridge;

import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** A session whose work happens elsewhere: it can answer later without holding a thread meanwhile. */
public interface AsyncSession extends Session {
  /**
   * As {@link Session#run}; the future fails with the exception that {@code run} would throw.
   *
   * @param feeds tensors that satisfy the signature; used before this returns
   * @param call the outputs asked for and the time left; cancelling it ends the work
   */
  CompletableFuture<Map<String, Tensor>> runAsync(Map<String, Tensor> feeds, Call call);
}
