package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCall.Listener;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;

/** Asks the table about every call before a handler sees it, and counts those that are open. */
final class Gate implements ServerInterceptor {
  private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private static final Metadata.Key<String> GRPC_ERROR = Metadata.Key.of("triton_grpc_error", Metadata.ASCII_STRING_MARSHALLER);
  /** Whether the caller of this call wants a stream to end at its first error. */
  static final Context.Key<Boolean> ENDS_AT_ERRORS = Context.keyWithDefault("mlbridge-ends-at-errors", false);

  private final Repository repository;
  private final Access access;
  private final int maxCalls;
  private final AtomicInteger open = new AtomicInteger();

  Gate(Repository repository, Access access, int maxCalls) {
    this.repository = repository;
    this.access = access;
    this.maxCalls = maxCalls;
  }

  @Override
  public <Q, A> Listener<Q> interceptCall(ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
    Access.Role role = Access.role(call.getMethodDescriptor().getFullMethodName());
    if (role == Access.Role.OPEN) {
      return next.startCall(call, headers);
    }
    try {
      access.check(role, Optional.ofNullable(headers.get(AUTHORIZATION)));
      if (repository.draining()) {
        throw Repository.shuttingDown();
      }
    } catch (MlbridgeException e) {
      return refuse(call, e);
    }
    if (open.incrementAndGet() > maxCalls) {
      open.decrementAndGet();
      return refuse(call, MlbridgeException.of(Kind.OVERLOADED, "too many calls at once").withHint("try again later"));
    }
    if (!"true".equals(headers.get(GRPC_ERROR))) {
      return new Counted<>(next.startCall(call, headers));
    }
    return new Counted<>(Contexts.interceptCall(Context.current().withValue(ENDS_AT_ERRORS, true), call, headers, next));
  }

  private static <Q, A> Listener<Q> refuse(ServerCall<Q, A> call, MlbridgeException e) {
    Reply reply = Reply.refusal(e);
    call.close(reply.status(), reply.trailers());
    return new Listener<>() {};
  }

  /** A call that is open until gRPC says that it ended, one way or the other. */
  private final class Counted<Q> extends SimpleForwardingServerCallListener<Q> {
    Counted(Listener<Q> inner) {
      super(inner);
    }

    @Override
    public void onComplete() {
      open.decrementAndGet();
      super.onComplete();
    }

    @Override
    public void onCancel() {
      open.decrementAndGet();
      super.onCancel();
    }
  }
}
