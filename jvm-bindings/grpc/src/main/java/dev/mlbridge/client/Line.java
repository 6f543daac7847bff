package dev.mlbridge.client;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.common.util.concurrent.MoreExecutors;
import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.StatusCode;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Calls of one server: deadline, token, cancellation, and its errors as typed ones. */
final class Line implements AutoCloseable {
  private static final Metadata.Key<String> AUTHORIZATION = key("authorization");
  private static final Metadata.Key<String> ERROR = key("mlbridge-error");

  private final Channels.Shared shared;
  private final Place place;
  private final Optional<Metadata> headers;
  private volatile boolean closed;

  Line(Channels.Shared shared, Place place, Settings settings) {
    this.shared = shared;
    this.place = place;
    this.headers =
        settings.token().map(
            token -> {
              Metadata out = new Metadata();
              out.put(AUTHORIZATION, "Bearer " + token);
              return out;
            });
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  /** Asks and waits, on this thread alone. */
  <Q, A> A ask(MethodDescriptor<Q, A> method, Q question, Call call, Duration timeout) {
    Tie tie = new Tie();
    try {
      return ClientCalls.blockingUnaryCall(channel(call, tie), method, options(call, timeout), question);
    } catch (StatusRuntimeException e) {
      throw error(e);
    } finally {
      tie.forget.run();
    }
  }

  /** Asks; the answer comes on one of gRPC's threads. */
  <Q, A> CompletableFuture<A> askLater(MethodDescriptor<Q, A> method, Q question, Call call, Duration timeout) {
    CompletableFuture<A> out = new CompletableFuture<>();
    Tie tie = new Tie();
    ListenableFuture<A> answer;
    try {
      answer = ClientCalls.futureUnaryCall(channel(call, tie).newCall(method, options(call, timeout)), question);
    } catch (MlbridgeException e) {
      return CompletableFuture.failedFuture(e);
    }
    Futures.addCallback(
        answer,
        new FutureCallback<>() {
          @Override
          public void onSuccess(A message) {
            tie.forget.run();
            out.complete(message);
          }

          @Override
          public void onFailure(Throwable failure) {
            tie.forget.run();
            out.completeExceptionally(failure instanceof StatusRuntimeException e ? error(e) : failure);
          }
        },
        MoreExecutors.directExecutor());
    return out;
  }

  /** What takes back the tie between the caller's call and gRPC's. */
  private static final class Tie {
    private volatile Runnable forget = () -> {};
  }

  private Channel channel(Call call, Tie tie) {
    if (closed) {
      throw MlbridgeException.of(Kind.CLOSED, "the session is closed");
    }
    Channel plain = shared.channel();
    Channel authorised = headers.map(h -> ClientInterceptors.intercept(plain, MetadataUtils.newAttachHeadersInterceptor(h))).orElse(plain);
    return new Channel() {
      @Override
      public <Q, A> ClientCall<Q, A> newCall(MethodDescriptor<Q, A> method, CallOptions options) {
        ClientCall<Q, A> out = authorised.newCall(method, options);
        tie.forget = call.onCancel(() -> out.cancel("the caller cancelled", null));
        return out;
      }

      @Override
      public String authority() {
        return authorised.authority();
      }
    };
  }

  private static CallOptions options(Call call, Duration timeout) {
    Duration left = call.remaining().orElse(timeout);
    if (left.isNegative() || left.isZero()) {
      throw MlbridgeException.of(Kind.TIMEOUT, "the deadline passed");
    }
    return CallOptions.DEFAULT.withDeadlineAfter(left.toNanos(), TimeUnit.NANOSECONDS);
  }

  private MlbridgeException error(StatusRuntimeException e) {
    Status status = e.getStatus();
    if (closed && status.getCode() != Status.Code.DEADLINE_EXCEEDED) {
      return MlbridgeException.of(Kind.CLOSED, "the session is closed").withCause(e);
    }
    StatusCode code = StatusCode.of(status.getCode().value());
    Kind kind =
        Optional.ofNullable(e.getTrailers())
            .map(t -> t.get(ERROR))
            .flatMap(Kind::of)
            .filter(k -> k != Kind.ARTIFACT && k != Kind.UNTRUSTED) // which are of this side's files alone
            .orElseGet(() -> kind(code));
    String text = Optional.ofNullable(status.getDescription()).orElse(code.name());
    return MlbridgeException.of(kind, place + ": " + text).withCode(code).withCause(e);
  }

  private static Kind kind(StatusCode code) {
    return switch (code) {
      case INVALID_ARGUMENT -> Kind.INPUT;
      case NOT_FOUND -> Kind.NOT_FOUND;
      case DEADLINE_EXCEEDED -> Kind.TIMEOUT;
      case RESOURCE_EXHAUSTED -> Kind.OVERLOADED;
      case UNIMPLEMENTED -> Kind.UNSUPPORTED;
      case UNAVAILABLE -> Kind.BRIDGE;
      case PERMISSION_DENIED, UNAUTHENTICATED -> Kind.ACCESS;
      case CANCELLED -> Kind.CANCELLED;
      default -> Kind.INFERENCE;
    };
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      shared.release();
    }
  }
}
