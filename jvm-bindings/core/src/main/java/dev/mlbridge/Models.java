package dev.mlbridge;

import dev.mlbridge.packages.Implementation;
import dev.mlbridge.packages.PackageReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;

/** Opens models: packages, ONNX files that hold their signature, jars, PMML, Spark folders, and models served elsewhere. */
public final class Models {
  private static final double TOLERANCE = 1e-9;
  private static final double TOLERANCE_32 = 1e-4;

  private Models() {}

  /** As {@link #load(String, Trust, Map)}, at trust {@code data} and without options. */
  public static Model load(String source) {
    return load(source, Trust.DATA, Map.of());
  }

  /** As {@link #load(String, Trust, Map)}, without options. */
  public static Model load(Path source, Trust trust) {
    return local(source, trust, Map.of());
  }

  /**
   * Opens a model; a package is compared with its golden samples.
   *
   * @param source a path; {@code jvm:model.jar#com.acme.Churn}; or {@code grpc://host:port/model[@version]}, with TLS
   *     {@code grpcs://}, of which the jar for the wire must be on the class path
   * @param trust below {@code CODE} only what executes nothing is opened
   * @param options of the runtime that opens it; {@code signature}, in JSON, where the source holds none
   * @throws MlbridgeException ArtifactError, ConversionError where the samples differ, MissingDependencyError,
   *     UntrustedArtifactError, NotFoundError; of an address also AccessError and BridgeError
   */
  public static Model load(String source, Trust trust, Map<String, String> options) {
    Optional<Sources.Address> address = Sources.address(source);
    if (address.isPresent()) {
      return served(address.get(), options);
    }
    Sources.Local local = Sources.local(source);
    Map<String, String> all = new LinkedHashMap<>(options);
    local.member().ifPresent(name -> all.put("class", name));
    return local(local.path(), trust, all);
  }

  private static Model served(Sources.Address address, Map<String, String> options) {
    for (Runtime runtime : ServiceLoader.load(Runtime.class, Models.class.getClassLoader())) {
      if (runtime.schemes().contains(address.scheme())) {
        Session session = runtime.connect(address.scheme(), address.rest(), options);
        return new Model(session, session.signature(), runtime.name() + ": served at " + address.rest());
      }
    }
    throw MlbridgeException.of(
            MlbridgeException.Kind.MISSING_DEPENDENCY, "nothing on this class path opens " + address.scheme() + "://")
        .withHint("add mlbridge-jvm.jar, or dev.mlbridge:mlbridge-grpc, to the class path");
  }

  private static Model local(Path source, Trust trust, Map<String, String> options) {
    String format = Sources.format(source);
    return switch (format) {
      case "mlb" -> packaged(source, trust);
      case "onnx" -> opened(source, format, "the file is ONNX", options);
      case "pmml" -> opened(source, format, "the file is PMML", options);
      default -> {
        if (trust != Trust.CODE) {
          throw MlbridgeException.of(MlbridgeException.Kind.UNTRUSTED, source + ": a " + format + " executes code, and trust is " + trust)
              .withHint("pass Trust.CODE if you trust where it comes from");
        }
        yield opened(source, format, "the source is a " + format, options);
      }
    };
  }

  private static Model opened(Path source, String format, String why, Map<String, String> options) {
    Optional<Signature> given = Optional.ofNullable(options.get("signature")).map(Signature::fromJson);
    Runtime runtime = runtime(format).orElseThrow(() -> nothingRuns(format));
    Session session = runtime.load(source, given, options);
    return new Model(session, given.orElseGet(session::signature), runtime.name() + ": " + why);
  }

  private static Model packaged(Path source, Trust trust) {
    PackageReader opened = PackageReader.open(source);
    try {
      return choose(opened, trust);
    } catch (RuntimeException e) {
      opened.close();
      throw e;
    }
  }

  private static Model choose(PackageReader opened, Trust trust) {
    Signature signature = opened.manifest().signature();
    List<MlbridgeException> refused = new ArrayList<>();
    for (Implementation entry : opened.manifest().implementations()) {
      boolean graph = entry.runtime().equals("onnx");
      try {
        if (!graph && trust != Trust.CODE) {
          throw MlbridgeException.of(
                  MlbridgeException.Kind.UNTRUSTED,
                  "running its " + entry.format() + " implementation executes code, and trust is " + trust)
              .withHint("pass Trust.CODE if you trust where it comes from");
        }
        Session session = open(opened, entry, signature);
        if (graph) {
          verify(opened, session, entry);
        }
        String why = graph ? "onnx: the package's verified ONNX" : entry.runtime() + ": the package has no ONNX";
        return new Model(new Kept(session, opened), signature, opened.samples().isPresent() || !graph ? why : "onnx: not verified");
      } catch (MlbridgeException e) {
        refused.add(e);
      }
    }
    throw refused.get(0);
  }

  private static Session open(PackageReader opened, Implementation entry, Signature signature) {
    boolean graph = entry.runtime().equals("onnx");
    String key = graph ? "onnx" : entry.format();
    Runtime runtime = runtime(key).orElseThrow(() -> nothingRuns(key));
    Path path = opened.path(entry.path());
    return runtime.load(graph ? graphFile(path) : path, Optional.of(signature), entry.options());
  }

  private static MlbridgeException nothingRuns(String format) {
    return MlbridgeException.of(MlbridgeException.Kind.UNSUPPORTED, "nothing on this class path runs the format '" + format + "'")
        .withHint("convert it to ONNX in Python, or add the jar of a runtime");
  }

  private static Path graphFile(Path path) {
    if (!Files.isDirectory(path)) {
      return path;
    }
    try (var files = Files.list(path)) {
      return files.filter(f -> f.toString().endsWith(".onnx")).findFirst().orElse(path.resolve("model.onnx"));
    } catch (IOException e) {
      throw Json.artifact("the ONNX implementation cannot be listed: " + e.getMessage()).withCause(e);
    }
  }

  private static Optional<Runtime> runtime(String format) {
    for (Runtime runtime : ServiceLoader.load(Runtime.class, Models.class.getClassLoader())) {
      if (runtime.formats().contains(format)) {
        return Optional.of(runtime);
      }
    }
    return Optional.empty();
  }

  /** Compares a session with the golden samples by the design's relative error. */
  private static void verify(PackageReader opened, Session session, Implementation entry) {
    Optional<PackageReader.Samples> samples = opened.samples();
    if (samples.isEmpty()) {
      return;
    }
    Map<String, Tensor> got;
    try {
      got = session.run(samples.get().inputs(), Call.all());
    } catch (Exception e) {
      session.close();
      throw MlbridgeException.of(MlbridgeException.Kind.CONVERSION, "the ONNX form fails on its golden samples: " + e).withCause(e);
    }
    for (Map.Entry<String, Tensor> want : samples.get().outputs().entrySet()) {
      boolean single = want.getValue().dtype() == DType.FLOAT32 || session.signature().inputs().stream().anyMatch(s -> s.dtype() == DType.FLOAT32);
      double tolerance = entry.tolerance().orElse(single ? TOLERANCE_32 : TOLERANCE);
      if (!got.containsKey(want.getKey()) || !Parity.holds(want.getValue(), got.get(want.getKey()), tolerance)) {
        session.close();
        throw MlbridgeException.of(
            MlbridgeException.Kind.CONVERSION, "the ONNX form answers '" + want.getKey() + "' differently from the golden samples");
      }
    }
  }

  /** A session that keeps the package's private copy until it is closed. */
  private record Kept(Session inner, PackageReader opened) implements Session {
    @Override
    public Signature signature() {
      return inner.signature();
    }

    @Override
    public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws Exception {
      return inner.run(feeds, call);
    }

    @Override
    public int maxConcurrency() {
      return inner.maxConcurrency();
    }

    @Override
    public void close() {
      try {
        inner.close();
      } finally {
        opened.close();
      }
    }
  }
}
