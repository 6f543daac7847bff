package dev.mlbridge.worker;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.frames.Frame;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;

/** The models of this process, by the numbers the parent gave them; shared by all lanes. */
final class Host {
  private final Map<Long, Hosted> models = new ConcurrentHashMap<>();

  private record Hosted(Session session, List<String> outputs, Semaphore turns) {}

  /** Loads a model; returns its signature. */
  Signature load(Frame frame) {
    long number = frame.integer("model").orElse(0);
    String format = frame.text("format").orElse("");
    Map<String, String> options = options(frame);
    Path path = Path.of(frame.text("path").orElseThrow(() -> bridge("LOAD holds no path")));
    Optional<Signature> given = frame.text("signature").map(Signature::fromJson);
    Session session = runtime(format, options).load(path, given, options);
    Signature signature = given.orElseGet(session::signature);
    int turns = Math.max(1, session.maxConcurrency());
    close(number);
    List<String> outputs = signature.outputs().stream().map(TensorSpec::name).toList();
    models.put(number, new Hosted(session, outputs, new Semaphore(turns)));
    return signature;
  }

  private static Runtime runtime(String format, Map<String, String> options) {
    Optional<String> name = Optional.ofNullable(options.get("runtime"));
    TreeSet<String> known = new TreeSet<>();
    for (Runtime runtime : ServiceLoader.load(Runtime.class, Host.class.getClassLoader())) {
      known.add(runtime.name());
      if (name.map(runtime.name()::equals).orElseGet(() -> runtime.formats().contains(format))) {
        return runtime;
      }
    }
    throw MlbridgeException.of(
            MlbridgeException.Kind.UNSUPPORTED,
            "no runtime in this JVM loads " + name.map(n -> "by the name '" + n + "'").orElse("the format '" + format + "'")
                + "; there are " + known)
        .withHint("add the jar of one to the option 'classpath'");
  }

  private static Map<String, String> options(Frame frame) {
    Map<String, String> out = new LinkedHashMap<>();
    frame.tensors()
        .forEach(
            (name, tensor) -> {
              if (name.startsWith("option.")) {
                out.put(name.substring("option.".length()), text(tensor));
              }
            });
    return out;
  }

  private static String text(Tensor tensor) {
    List<String> items = new ArrayList<>();
    for (int i = 0; i < tensor.size(); i++) {
      items.add(
          switch (tensor.dtype()) {
            case STRING -> String.valueOf(tensor.strings()[i]);
            case INT64 -> Long.toString(tensor.longs().get(i));
            case BOOL -> Boolean.toString(tensor.bytes().get(i) != 0);
            default -> Double.toString(tensor.number(i));
          });
    }
    return String.join("\n", items); // a list is one line an item
  }

  /** Runs a model; returns exactly the outputs asked for, in order. */
  Map<String, Tensor> run(Frame frame, Call call) throws Exception {
    long number = frame.integer("@model").orElse(0);
    Hosted model =
        Optional.ofNullable(models.get(number)).orElseThrow(() -> bridge("no model " + number + " is loaded here"));
    Map<String, Tensor> feeds = new LinkedHashMap<>();
    frame.tensors()
        .forEach(
            (name, tensor) -> {
              if (!name.startsWith("@")) {
                feeds.put(name, tensor);
              }
            });
    Map<String, Tensor> got;
    model.turns.acquire();
    try {
      got = model.session.run(feeds, call);
    } finally {
      model.turns.release();
    }
    if (got == null) {
      throw MlbridgeException.of(MlbridgeException.Kind.INFERENCE, "the model answered null, not its outputs by name");
    }
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : call.outputs().isEmpty() ? model.outputs : call.outputs()) {
      Optional.ofNullable(got.get(name)).ifPresent(tensor -> out.put(name, tensor)); // the parent names what is absent
    }
    return out;
  }

  /** Forgets a model. */
  void close(long number) {
    Optional.ofNullable(models.remove(number)).ifPresent(m -> m.session.close());
  }

  /** Returns the time left that RUN holds, in seconds. */
  static Optional<Double> seconds(Frame frame) {
    return Optional.ofNullable(frame.tensors().get("@timeout_s"))
        .filter(t -> t.dtype() == DType.FLOAT64 && t.size() == 1)
        .map(t -> t.doubles().get(0));
  }

  private static MlbridgeException bridge(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.BRIDGE, text);
  }
}
