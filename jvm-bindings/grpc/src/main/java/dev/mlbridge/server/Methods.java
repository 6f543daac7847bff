package dev.mlbridge.server;

import com.google.protobuf.CodedInputStream;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Parser;
import com.google.protobuf.UnsafeByteOperations;
import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc;
import dev.mlbridge.grpc.inference.ModelConfigRequest;
import dev.mlbridge.grpc.inference.ModelConfigResponse;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.grpc.inference.ModelInferResponse;
import dev.mlbridge.grpc.inference.ModelMetadataRequest;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import dev.mlbridge.grpc.inference.ModelReadyRequest;
import dev.mlbridge.grpc.inference.ModelReadyResponse;
import dev.mlbridge.grpc.inference.ModelStatisticsRequest;
import dev.mlbridge.grpc.inference.ModelStatisticsResponse;
import dev.mlbridge.grpc.inference.ModelStreamInferResponse;
import dev.mlbridge.grpc.inference.ServerLiveRequest;
import dev.mlbridge.grpc.inference.ServerLiveResponse;
import dev.mlbridge.grpc.inference.ServerMetadataRequest;
import dev.mlbridge.grpc.inference.ServerMetadataResponse;
import dev.mlbridge.grpc.inference.ServerReadyRequest;
import dev.mlbridge.grpc.inference.ServerReadyResponse;
import dev.mlbridge.grpc.v1.BridgeGrpc;
import dev.mlbridge.grpc.v1.DescribeRequest;
import dev.mlbridge.grpc.v1.DescribeResponse;
import dev.mlbridge.wire.Wire;
import io.grpc.Context;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCallHandler;
import io.grpc.ServerServiceDefinition;
import io.grpc.ServiceDescriptor;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * The service's calls as gRPC's handlers. Messages arrive as bytes and are parsed here: gRPC itself answers a malformed
 * one with the wrong code.
 */
final class Methods {
  private final Service service;
  private final About about;
  private final Map<String, Bound<?>> bound = new HashMap<>();

  private record Bound<T extends Message>(T prototype, ServerCallHandler<Body, T> handler) {}

  /** What a call does with its message. */
  private interface Answer<Q, A> {
    A to(Q request) throws Refused;
  }

  Methods(Service service, About about) {
    this.service = service;
    this.about = about;
    unary("ServerLive", ServerLiveRequest.parser(), ServerLiveResponse.getDefaultInstance(), r -> live());
    unary("ServerReady", ServerReadyRequest.parser(), ServerReadyResponse.getDefaultInstance(), r -> ready());
    unary("ModelReady", ModelReadyRequest.parser(), ModelReadyResponse.getDefaultInstance(), this::modelReady);
    unary("ServerMetadata", ServerMetadataRequest.parser(), ServerMetadataResponse.getDefaultInstance(), r -> about.server());
    unary("ModelMetadata", ModelMetadataRequest.parser(), ModelMetadataResponse.getDefaultInstance(), about::metadata);
    unary("ModelConfig", ModelConfigRequest.parser(), ModelConfigResponse.getDefaultInstance(), about::config);
    unary("ModelStatistics", ModelStatisticsRequest.parser(), ModelStatisticsResponse.getDefaultInstance(), about::statistics);
    unary("ModelInfer", ModelInferRequest.parser(), ModelInferResponse.getDefaultInstance(), r -> service.infer(r, new RpcCaller()));
    unary("Describe", DescribeRequest.parser(), DescribeResponse.getDefaultInstance(), about::describe);
    ModelStreamInferResponse streamed = ModelStreamInferResponse.getDefaultInstance();
    bound.put("ModelStreamInfer", new Bound<>(streamed, ServerCalls.asyncBidiStreamingCall(this::stream)));
  }

  private static ServerLiveResponse live() {
    return ServerLiveResponse.newBuilder().setLive(true).build();
  }

  private ServerReadyResponse ready() {
    return ServerReadyResponse.newBuilder().setReady(!about.draining()).build();
  }

  private ModelReadyResponse modelReady(ModelReadyRequest request) {
    return ModelReadyResponse.newBuilder().setReady(about.ready(request.getName(), request.getVersion())).build();
  }

  /** Returns both services, reflection's descriptors included. */
  List<ServerServiceDefinition> definitions() {
    return List.of(definition(GRPCInferenceServiceGrpc.getServiceDescriptor()), definition(BridgeGrpc.getServiceDescriptor()));
  }

  private ServerServiceDefinition definition(ServiceDescriptor generated) {
    ServiceDescriptor.Builder descriptor =
        ServiceDescriptor.newBuilder(generated.getName()).setSchemaDescriptor(generated.getSchemaDescriptor());
    Map<MethodDescriptor<Body, ?>, ServerCallHandler<Body, ?>> methods = new HashMap<>();
    for (MethodDescriptor<?, ?> method : generated.getMethods()) {
      Bound<?> here = bound.getOrDefault(method.getBareMethodName(), notOffered(method.getBareMethodName()));
      MethodDescriptor<Body, ?> bytes = described(method, here.prototype());
      descriptor.addMethod(bytes);
      methods.put(bytes, here.handler());
    }
    ServerServiceDefinition.Builder out = ServerServiceDefinition.builder(descriptor.build());
    methods.forEach((method, handler) -> add(out, method, handler));
    return out.build();
  }

  private static MethodDescriptor<Body, ?> described(MethodDescriptor<?, ?> method, Message prototype) {
    return method.toBuilder(Body.MARSHALLER, ProtoUtils.marshaller(prototype)).build();
  }

  @SuppressWarnings("unchecked") // a method and its handler were made together in `bound`
  private static <T> void add(ServerServiceDefinition.Builder out, MethodDescriptor<Body, ?> method, ServerCallHandler<Body, ?> handler) {
    out.addMethod((MethodDescriptor<Body, T>) method, (ServerCallHandler<Body, T>) handler);
  }

  private static Bound<?> notOffered(String name) {
    MlbridgeException no = MlbridgeException.of(Kind.UNSUPPORTED, "the call " + name + " is not offered here");
    return new Bound<>(
        ModelInferResponse.getDefaultInstance(),
        ServerCalls.asyncUnaryCall((Body body, StreamObserver<ModelInferResponse> out) -> out.onError(Reply.refusal(no).exception())));
  }

  // -------------------------------------------------- one message

  private <Q extends Message, A extends Message> void unary(String name, Parser<Q> parser, A prototype, Answer<Q, A> answer) {
    ServerCallHandler<Body, A> handler =
        ServerCalls.asyncUnaryCall(
            (Body body, StreamObserver<A> out) -> {
              ((ServerCallStreamObserver<A>) out).setOnCancelHandler(() -> {}); // else a late answer throws
              A message;
              try {
                message = answer.to(parse(parser, body));
              } catch (Refused e) {
                out.onError(e.reply.exception());
                return;
              } catch (RuntimeException | Error e) { // a client must never see what gRPC makes of a mistake of ours
                out.onError(Reply.inside(e, "a call").exception());
                return;
              }
              out.onNext(message);
              out.onCompleted();
            });
    bound.put(name, new Bound<>(prototype, handler));
  }

  private static <Q> Q parse(Parser<Q> parser, Body body) throws Refused {
    if (body.problem().isPresent()) {
      throw new Refused(Reply.refusal(body.problem().get()));
    }
    try {
      CodedInputStream in = UnsafeByteOperations.unsafeWrap(body.bytes()).newCodedInput();
      in.enableAliasing(true); // tensors are views of the message
      Q out = parser.parseFrom(in);
      in.checkLastTagWas(0);
      return out;
    } catch (InvalidProtocolBufferException e) {
      throw new Refused(Reply.refusal(Wire.input("the message is not a well-formed protobuf message of this call")));
    }
  }

  /** The caller of the RPC that runs on this thread. */
  private static final class RpcCaller implements Service.Caller {
    private final Context context = Context.current();

    @Override
    public Optional<Duration> remaining() {
      return Optional.ofNullable(context.getDeadline()).map(d -> Duration.ofNanos(d.timeRemaining(TimeUnit.NANOSECONDS)));
    }

    @Override
    public Runnable tie(Call call) {
      Context.CancellationListener listener = ended -> call.cancel();
      context.addListener(listener, Runnable::run); // gRPC's own onCancel waits for this thread
      return () -> context.removeListener(listener);
    }
  }

  // -------------------------------------------------- a stream of messages

  private StreamObserver<Body> stream(StreamObserver<ModelStreamInferResponse> out) {
    ((ServerCallStreamObserver<ModelStreamInferResponse>) out).setOnCancelHandler(() -> {});
    return new StreamObserver<>() {
      private boolean ended;

      @Override
      public void onNext(Body body) {
        if (ended) {
          return;
        }
        String id = "";
        Reply wrong;
        try {
          ModelInferRequest request = parse(ModelInferRequest.parser(), body);
          id = request.getId();
          ModelInferResponse answer = finished(service.infer(request, new RpcCaller()), request);
          out.onNext(ModelStreamInferResponse.newBuilder().setInferResponse(answer).build());
          return;
        } catch (Refused e) {
          wrong = e.reply;
        } catch (RuntimeException e) {
          wrong = Reply.inside(e, "a call");
        }
        ended = Gate.ENDS_AT_ERRORS.get() || about.draining();
        if (ended) {
          out.onError(wrong.exception());
        } else {
          ModelInferResponse unanswered = ModelInferResponse.newBuilder().setId(id).build();
          out.onNext(ModelStreamInferResponse.newBuilder().setErrorMessage(wrong.text()).setInferResponse(unanswered).build());
        }
      }

      @Override
      public void onError(Throwable gone) {
        // the client has left; a request that runs was cancelled with its context
      }

      @Override
      public void onCompleted() {
        if (!ended) {
          out.onCompleted();
        }
      }
    };
  }

  private static ModelInferResponse finished(ModelInferResponse answer, ModelInferRequest request) {
    boolean wanted =
        Optional.ofNullable(request.getParametersMap().get("triton_enable_empty_final_response")).map(p -> p.getBoolParam()).orElse(false);
    if (!wanted) {
      return answer;
    }
    var yes = dev.mlbridge.grpc.inference.InferParameter.newBuilder().setBoolParam(true).build();
    return answer.toBuilder().putParameters("triton_final_response", yes).build();
  }
}
