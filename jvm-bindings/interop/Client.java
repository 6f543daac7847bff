import dev.mlbridge.Call;
import dev.mlbridge.Json;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.Trust;
import dev.mlbridge.shaded.gson.JsonElement;
import dev.mlbridge.shaded.gson.JsonObject;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionException;

/** The JVM's client of the matrix: {@code Models.load("grpc://…")}. See docs/interop.md. */
public final class Client {
  private Client() {}

  /** Prints a line a case. */
  public static void main(String[] args) throws Exception {
    JsonObject file = Vectors.read(Vectors.option(args, "--vectors").orElseThrow());
    String target = Vectors.option(args, "--target").orElseThrow();
    Map<String, String> options = new LinkedHashMap<>();
    Vectors.option(args, "--token").ifPresent(token -> options.put("token", token));
    Vectors.option(args, "--authority").ifPresent(path -> options.put("root_certificates", path));
    String scheme = options.containsKey("root_certificates") ? "grpcs://" : "grpc://";
    for (int i = 0; i < args.length; i++) {
      if (args[i].equals("--case")) {
        JsonObject asked = Vectors.named(file.getAsJsonArray("cases"), args[i + 1]);
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("case", args[i + 1]);
        if (asked.has("encoding")) {
          line.put("skipped", "this client always sends raw");
        } else {
          line.putAll(answered(asked, scheme + target, options));
        }
        StringBuilder out = new StringBuilder();
        Json.write(out, line);
        System.out.println(out);
      }
    }
  }

  private static Map<String, Object> answered(JsonObject asked, String target, Map<String, String> options) {
    Map<String, Object> line = new LinkedHashMap<>();
    try (Model model = Models.load(target + "/" + asked.get("model").getAsString(), Trust.DATA, options)) {
      Map<String, Tensor> inputs = new LinkedHashMap<>();
      for (JsonElement e : asked.getAsJsonArray("feeds")) {
        inputs.put(e.getAsJsonObject().get("name").getAsString(), Vectors.tensor(e.getAsJsonObject()));
      }
      Map<String, Tensor> got = ask(model, inputs, asked);
      List<Object> answers = new ArrayList<>();
      for (TensorSpec spec : model.signature().outputs()) {
        answers.add(Vectors.written(spec, got.get(spec.name())));
      }
      line.put("code", "OK");
      line.put("answers", answers);
    } catch (MlbridgeException e) {
      line.put("code", e.code().name());
      line.put("class", e.kind().className());
      line.put("message", e.getMessage());
    }
    return line;
  }

  private static Map<String, Tensor> ask(Model model, Map<String, Tensor> inputs, JsonObject asked) {
    Optional<Duration> timeout =
        asked.has("timeout_s") ? Optional.of(Duration.ofMillis((long) (1000 * asked.get("timeout_s").getAsDouble()))) : Optional.empty();
    Call call = Call.of(List.of(), timeout);
    if (!asked.has("cancel_after_s")) {
      return model.predict(inputs, call);
    }
    try {
      var later = model.predictAsync(inputs, call);
      Thread.sleep((long) (1000 * asked.get("cancel_after_s").getAsDouble()));
      call.cancel();
      return later.join();
    } catch (CompletionException e) {
      throw (MlbridgeException) e.getCause();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}
