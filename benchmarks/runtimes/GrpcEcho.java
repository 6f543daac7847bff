import dev.mlbridge.Call;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Tensor;
import dev.mlbridge.grpc.inference.ModelInferRequest;
import dev.mlbridge.shaded.google.protobuf.ByteString;
import dev.mlbridge.shaded.grpc.CallOptions;
import dev.mlbridge.shaded.grpc.Grpc;
import dev.mlbridge.shaded.grpc.InsecureChannelCredentials;
import dev.mlbridge.shaded.grpc.InsecureServerCredentials;
import dev.mlbridge.shaded.grpc.ManagedChannel;
import dev.mlbridge.shaded.grpc.MethodDescriptor;
import dev.mlbridge.shaded.grpc.Server;
import dev.mlbridge.shaded.grpc.ServerServiceDefinition;
import dev.mlbridge.shaded.grpc.stub.ClientCalls;
import dev.mlbridge.shaded.grpc.stub.ServerCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** The reference, a gRPC method that answers the bytes it got; and the one client that measures it and mlbridge. */
public final class GrpcEcho {
  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream in) {
          try {
            return in.readAllBytes();
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        }
      };

  private GrpcEcho() {}

  private static MethodDescriptor<byte[], byte[]> method(String name) {
    return MethodDescriptor.newBuilder(BYTES, BYTES).setType(MethodDescriptor.MethodType.UNARY).setFullMethodName(name).build();
  }

  /** {@code serve}, or {@code measure BARE OURS ELEMENTS WARM ROUNDS CALLS}: nanoseconds a call, a line a variant. */
  public static void main(String[] args) throws Exception {
    if (args[0].equals("serve")) {
      serve();
    } else {
      int[] n = Arrays.stream(args, 3, args.length).mapToInt(Integer::parseInt).toArray();
      measure(args[1], args[2], n[0], n[1], n[2], n[3]);
    }
  }

  private static void serve() throws Exception {
    ServerServiceDefinition echo =
        ServerServiceDefinition.builder("bare.Echo")
            .addMethod(
                method("bare.Echo/Echo"),
                ServerCalls.asyncUnaryCall(
                    (byte[] question, dev.mlbridge.shaded.grpc.stub.StreamObserver<byte[]> out) -> {
                      out.onNext(question);
                      out.onCompleted();
                    }))
            .build();
    Server server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create()).maxInboundMessageSize(16 << 20).addService(echo).build().start();
    System.out.println("serving on 127.0.0.1:" + server.getPort());
    server.awaitTermination();
  }

  private static ManagedChannel open(String target) {
    return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).maxInboundMessageSize(16 << 20).build();
  }

  private static void measure(String bare, String ours, int elements, int warm, int rounds, int calls) throws Exception {
    double[] values = new Random(0).doubles(elements).toArray();
    Map<String, Tensor> feeds = Map.of("float64", Tensor.of(values, elements, 1));
    byte[] question = question(feeds.get("float64")).toByteArray();
    ManagedChannel reference = open(bare);
    ManagedChannel served = open(ours);
    Model model = Models.load("grpc://" + ours + "/echo");
    Map<String, Runnable> variants = new LinkedHashMap<>();
    variants.put("bare", () -> ask(reference, "bare.Echo/Echo", question));
    variants.put("server", () -> ask(served, "inference.GRPCInferenceService/ModelInfer", question));
    variants.put("client and server", () -> model.run(feeds, Call.all()));
    if (!Arrays.equals(values, model.run(feeds, Call.all()).get("float64_out").toDoubles())) {
      throw new AssertionError("the echo is another");
    }
    for (int i = 0; i < warm; i++) { // until the compilers on all sides are done
      variants.values().forEach(Runnable::run);
    }
    Map<String, long[]> times = new LinkedHashMap<>();
    variants.keySet().forEach(name -> times.put(name, new long[rounds]));
    List<String> order = new java.util.ArrayList<>(variants.keySet());
    Random random = new Random(1);
    for (int round = 0; round < rounds; round++) {
      Collections.shuffle(order, random);
      for (String name : order) {
        Runnable call = variants.get(name);
        long began = System.nanoTime();
        for (int i = 0; i < calls; i++) {
          call.run();
        }
        times.get(name)[round] = (System.nanoTime() - began) / calls;
      }
    }
    times.forEach((name, t) -> System.out.println(name + "\t" + Arrays.toString(t).replaceAll("[\\[\\] ]", "")));
    model.close();
    reference.shutdownNow();
    served.shutdownNow();
  }

  private static byte[] ask(ManagedChannel channel, String name, byte[] question) {
    return ClientCalls.blockingUnaryCall(channel, METHODS.computeIfAbsent(name, GrpcEcho::method), CallOptions.DEFAULT, question);
  }

  private static final Map<String, MethodDescriptor<byte[], byte[]>> METHODS = new java.util.concurrent.ConcurrentHashMap<>();

  private static ModelInferRequest question(Tensor t) {
    ByteBuffer bytes = t.bytes();
    ModelInferRequest.InferInputTensor input =
        ModelInferRequest.InferInputTensor.newBuilder().setName("float64").setDatatype("FP64").addShape(t.dim(0)).addShape(1).build();
    return ModelInferRequest.newBuilder().setModelName("echo").addInputs(input).addRawInputContents(ByteString.copyFrom(bytes)).build();
  }
}
