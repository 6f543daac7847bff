package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Model;
import dev.mlbridge.Session;
import dev.mlbridge.grpc.inference.GRPCInferenceServiceGrpc;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Hosts models on the Open Inference Protocol v2 over gRPC, with health, reflection and mlbridge's own Describe.
 *
 * <pre>{@code
 * try (MlbridgeServer server = MlbridgeServer.builder().model("churn", new Churn()).address("127.0.0.1:8001").start()) {
 *   server.await();
 * }
 * }</pre>
 */
public final class MlbridgeServer implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("mlbridge.server");
  private static final Duration GRACE = Duration.ofSeconds(30);
  private static final long LINGER_MS = 200; // late callers read UNAVAILABLE for so long, and not a torn stream

  private final Repository repository;
  private final Builder settings;
  private final Listener listener;
  private final CountDownLatch stopped = new CountDownLatch(1);

  private MlbridgeServer(Repository repository, Builder settings, Listener listener) {
    this.repository = repository;
    this.settings = settings;
    this.listener = listener;
  }

  /** Starts from the defaults: 127.0.0.1:8001, no token, messages of 16 MiB. */
  public static Builder builder() {
    return new Builder();
  }

  /** Returns where it listens: {@code host:port}. */
  public String address() {
    return listener.address().toString();
  }

  /** Serves a model under a name and a version (digits), or replaces one during traffic; it stays the caller's. */
  public void load(String name, String version, Model model) {
    if (stopped.getCount() == 0) {
      throw MlbridgeException.of(Kind.CLOSED, "the server was stopped");
    }
    Repository.checkNames(name, version);
    repository.add(settings.served(name, version, model, false));
  }

  /** Stops serving a model once its requests have ended. */
  public void unload(String name) {
    repository.remove(name);
  }

  /** As {@link #stop(Duration)}, with thirty seconds. */
  @Override
  public void close() {
    stop(GRACE);
  }

  /**
   * Drains and stops: NOT_SERVING first, then no new work, then the end of what was accepted.
   *
   * @return whether everything accepted was answered within that time
   */
  public synchronized boolean stop(Duration grace) {
    if (stopped.getCount() == 0) {
      return true;
    }
    boolean drained = false;
    try {
      listener.serving(GRPCInferenceServiceGrpc.SERVICE_NAME, false);
      drained = repository.drain(grace.toNanos());
      TimeUnit.MILLISECONDS.sleep(LINGER_MS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    listener.stop(drained);
    repository.close();
    stopped.countDown();
    LOG.log(System.Logger.Level.INFO, drained ? "server stopped" : "server stopped; requests were cut off");
    return drained;
  }

  /** Waits until the server was stopped. */
  public void await() throws InterruptedException {
    stopped.await();
  }

  /** What to serve, where, and within which limits. */
  public static final class Builder {
    private final List<Entry> entries = new ArrayList<>();
    private final Map<String, String> preferred = new LinkedHashMap<>();
    private Address address = new Address("127.0.0.1", 8001);
    private Optional<Tls> tls = Optional.empty();
    private Optional<String> token = Optional.empty();
    private boolean insecure;
    private boolean alwaysRaw;
    private boolean writeSignature;
    private int maxQueue = 128;
    private int maxMessageMib = 16;
    private int maxCalls = 256;

    private record Entry(String name, String version, Model model, boolean owned) {}

    private Builder() {}

    /** Serves a session as version 1; it stays the caller's. */
    public Builder model(String name, Session session) {
      return model(name, "1", Model.of(session));
    }

    /** Serves a model as version 1; it stays the caller's. */
    public Builder model(String name, Model model) {
      return model(name, "1", model);
    }

    /** Serves a model under a name and a version, a string of digits; it stays the caller's. */
    public Builder model(String name, String version, Model model) {
      return add(name, version, model, false);
    }

    /** As {@link #model(String, String, Model)}; the server closes it in the end. */
    public Builder owned(String name, String version, Model model) {
      return add(name, version, model, true);
    }

    private Builder add(String name, String version, Model model, boolean owned) {
      Repository.checkNames(name, version);
      if (entries.stream().anyMatch(e -> e.name.equals(name) && e.version.equals(version))) {
        throw MlbridgeException.of(Kind.INPUT, "model '" + name + "': version " + version + " is given twice");
      }
      entries.add(new Entry(name, version, model, owned));
      return this;
    }

    /** Names the version that answers where a request names none; else it is the highest. */
    public Builder preferred(String name, String version) {
      preferred.put(name, version);
      return this;
    }

    /** Listens on {@code host:port}; port 0 takes any free one. */
    public Builder address(String hostAndPort) {
      address = Address.parse(hostAndPort);
      return this;
    }

    /** Encrypts: PEM files of a private key in PKCS#8 and its certificate chain. */
    public Builder tls(Path key, Path certificate) {
      tls = Optional.of(new Tls(key, certificate, tls.flatMap(Tls::clientAuthority)));
      return this;
    }

    /** Demands certificates of clients from this authority, a PEM file; after {@link #tls}. */
    public Builder clientAuthority(Path authority) {
      Tls plain = tls.orElseThrow(() -> MlbridgeException.of(Kind.INPUT, "clients' certificates need TLS: call tls first"));
      tls = Optional.of(new Tls(plain.key(), plain.certificate(), Optional.of(authority)));
      return this;
    }

    /** Asks callers for {@code authorization: Bearer <token>}. */
    public Builder token(String secret) {
      token = Optional.of(secret);
      return this;
    }

    /** Listens beyond this machine without TLS and a token. */
    public Builder insecure() {
      insecure = true;
      return this;
    }

    /** Lets so many requests of a model wait; more are refused at once. */
    public Builder maxQueue(int requests) {
      maxQueue = atLeast(0, requests, "maxQueue");
      return this;
    }

    /** Accepts messages of so many MiB. */
    public Builder maxMessageMib(int mib) {
      maxMessageMib = Math.min(atLeast(1, mib, "maxMessageMib"), 2047);
      return this;
    }

    /** Accepts so many calls at once. */
    public Builder maxCalls(int calls) {
      maxCalls = atLeast(1, calls, "maxCalls");
      return this;
    }

    private static int atLeast(int least, int value, String what) {
      if (value < least) {
        throw MlbridgeException.of(Kind.INPUT, what + " is " + value + ", at least " + least + " is needed");
      }
      return value;
    }

    /** Answers raw also where the request was typed. */
    public Builder alwaysRaw() {
      alwaysRaw = true;
      return this;
    }

    /** Writes the signature into the properties of ModelMetadata, which other dialects use otherwise. */
    public Builder writeSignature() {
      writeSignature = true;
      return this;
    }

    private Served served(String name, String version, Model model, boolean owned) {
      return new Served(name, version, model, owned, maxQueue, alwaysRaw);
    }

    /**
     * Serves.
     *
     * @throws MlbridgeException InputError where an address reaches beyond this machine without protection,
     *     UnavailableError where it is taken
     */
    public MlbridgeServer start() {
      boolean protectedOne = tls.isPresent() && (token.isPresent() || tls.get().clientAuthority().isPresent());
      if (!insecure && !address.local() && !protectedOne) {
        throw MlbridgeException.of(
                Kind.INPUT, address + " can be reached from other machines: that needs TLS and a token, or TLS and client certificates")
            .withHint("call tls() and token(), listen on 127.0.0.1, or call insecure()");
      }
      Repository repository = new Repository();
      preferred.forEach(repository::prefer);
      entries.forEach(e -> repository.add(served(e.name, e.version, e.model, e.owned)));
      Methods methods = new Methods(new Service(repository), new About(repository, writeSignature));
      Gate gate = new Gate(repository, new Access(token), maxCalls);
      Listener listener = Listener.start(address, tls, methods.definitions(), gate, maxMessageMib << 20);
      listener.serving(GRPCInferenceServiceGrpc.SERVICE_NAME, true);
      LOG.log(System.Logger.Level.INFO, "serving on " + listener.address());
      return new MlbridgeServer(repository, this, listener);
    }
  }
}
