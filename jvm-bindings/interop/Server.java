import dev.mlbridge.Call;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.server.MlbridgeServer;
import dev.mlbridge.shaded.gson.JsonElement;
import dev.mlbridge.shaded.gson.JsonObject;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;

/** The JVM's server of the matrix: the models of the vectors. See docs/interop.md. */
public final class Server {
  private Server() {}

  /** Answers its inputs, at once, later, or not at all. */
  private record Interop(Signature signature, String does) implements Session {
    @Override
    public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws InterruptedException {
      if (does.equals("fail")) {
        throw new IllegalStateException("a secret of /srv/models");
      }
      if (does.equals("sleep")) {
        Thread.sleep((long) (feeds.get("x").number(0) * 1000));
      }
      Map<String, Tensor> out = new LinkedHashMap<>();
      signature.outputs().forEach(o -> out.put(o.name(), feeds.get(o.name()).copy()));
      return out;
    }

    @Override
    public int maxConcurrency() {
      return Integer.MAX_VALUE;
    }

    @Override
    public void close() {}
  }

  /** Serves until SIGTERM, then drains. */
  public static void main(String[] args) throws Exception {
    JsonObject file = Vectors.read(Vectors.option(args, "--vectors").orElseThrow());
    MlbridgeServer.Builder builder = MlbridgeServer.builder().address("127.0.0.1:" + Vectors.option(args, "--port").orElse("0"));
    for (JsonElement e : file.getAsJsonArray("models")) {
      JsonObject model = e.getAsJsonObject();
      Signature signature = Signature.fromJson(model.get("signature").toString());
      builder.model(model.get("name").getAsString(), new Interop(signature, model.get("does").getAsString()));
    }
    Vectors.option(args, "--token").ifPresent(builder::token);
    Vectors.option(args, "--key").ifPresent(key -> builder.tls(Path.of(key), Path.of(Vectors.option(args, "--certificate").orElseThrow())));
    MlbridgeServer server = builder.start();
    // the JVM's own exit code would be the signal's
    Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(server.stop(Duration.ofSeconds(30)) ? 0 : 1)));
    System.out.println("ready " + server.address());
    Thread.currentThread().join();
  }
}
