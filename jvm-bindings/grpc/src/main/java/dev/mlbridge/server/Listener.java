package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.protobuf.services.ProtoReflectionService;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** gRPC's own server with the services, health and reflection, its limits and its threads. */
final class Listener {
  private static final int MAX_METADATA = 16 << 10; // bytes of a call's headers

  private final Server server;
  private final Address address;
  private final HealthStatusManager health;
  private final ExecutorService threads;

  private Listener(Server server, Address address, HealthStatusManager health, ExecutorService threads) {
    this.server = server;
    this.address = address;
    this.health = health;
    this.threads = threads;
  }

  static Listener start(
      Address address, Optional<Tls> tls, List<ServerServiceDefinition> services, ServerInterceptor gate, int maxMessageBytes) {
    HealthStatusManager health = new HealthStatusManager();
    ExecutorService threads = Executors.newCachedThreadPool(Listener::thread);
    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(address.socket(), tls.map(Tls::credentials).orElseGet(InsecureServerCredentials::create))
            .executor(threads)
            .intercept(gate)
            .maxInboundMessageSize(maxMessageBytes)
            .maxInboundMetadataSize(MAX_METADATA)
            .keepAliveTime(60, TimeUnit.SECONDS)
            .keepAliveTimeout(20, TimeUnit.SECONDS)
            .permitKeepAliveTime(10, TimeUnit.SECONDS)
            .permitKeepAliveWithoutCalls(true)
            .handshakeTimeout(10, TimeUnit.SECONDS)
            .addService(health.getHealthService())
            .addService(ProtoReflectionServiceV1.newInstance())
            .addService(older());
    services.forEach(builder::addService);
    try {
      Server server = builder.build().start();
      return new Listener(server, address.withPort(server.getPort()), health, threads);
    } catch (IOException e) {
      threads.shutdown();
      throw MlbridgeException.of(Kind.UNAVAILABLE, "cannot listen on " + address)
          .withHint("is another server using the port?")
          .withCause(e);
    }
  }

  @SuppressWarnings("deprecation") // most tools still ask by the older name
  private static io.grpc.BindableService older() {
    return ProtoReflectionService.newInstance();
  }

  private static final AtomicInteger COUNT = new AtomicInteger();

  private static Thread thread(Runnable work) {
    Thread out = new Thread(work, "mlbridge-grpc-" + COUNT.incrementAndGet());
    out.setDaemon(true);
    return out;
  }

  Address address() {
    return address;
  }

  /** Tells health's watchers, of the whole server and of one service. */
  void serving(String service, boolean yes) {
    ServingStatus status = yes ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    health.setStatus(HealthStatusManager.SERVICE_NAME_ALL_SERVICES, status);
    health.setStatus(service, status);
  }

  /** Closes the listener; what still runs has a second where everything accepted has ended, else it is cut off. */
  void stop(boolean drained) {
    server.shutdown();
    try {
      if (!drained || !server.awaitTermination(1, TimeUnit.SECONDS)) {
        server.shutdownNow().awaitTermination(1, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      server.shutdownNow();
      Thread.currentThread().interrupt();
    }
    threads.shutdown();
  }
}
