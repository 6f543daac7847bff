package dev.mlbridge;

import dev.mlbridge.packages.Implementation;
import dev.mlbridge.packages.PackageReader;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;

/** Opens models: packages, and ONNX files that hold their signature. */
public final class Models {
  private static final double TOLERANCE = 1e-9;
  private static final double TOLERANCE_32 = 1e-4;

  private Models() {}

  /** As {@link #load(Path, Trust)}, at trust {@code data}. */
  public static Model load(String source) {
    return load(Path.of(source), Trust.DATA);
  }

  /**
   * Opens a model and compares it with its golden samples.
   *
   * @param source a {@code .mlb} file or folder, or an ONNX file with a signature in its metadata
   * @param trust below {@code CODE} only implementations that execute nothing are taken
   * @throws MlbridgeException ArtifactError, ConversionError where the samples differ, MissingDependencyError,
   *     UntrustedArtifactError, NotFoundError
   */
  public static Model load(Path source, Trust trust) {
    if (!Files.exists(source)) {
      throw MlbridgeException.of(MlbridgeException.Kind.NOT_FOUND, source + ": no such file or folder");
    }
    if (!Files.isDirectory(source) && !isZip(source)) {
      Session session = runtime("onnx").orElseThrow().load(source, Optional.empty(), Map.of());
      return new Model(session, session.signature(), "onnx: the file is ONNX");
    }
    PackageReader opened = PackageReader.open(source);
    try {
      return choose(opened, trust);
    } catch (RuntimeException e) {
      opened.close();
      throw e;
    }
  }

  private static boolean isZip(Path source) {
    try (InputStream in = Files.newInputStream(source)) {
      return Arrays.equals(in.readNBytes(2), new byte[] {'P', 'K'});
    } catch (IOException e) {
      throw Json.artifact(source + ": cannot be read: " + e.getMessage()).withCause(e);
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
    Runtime runtime =
        runtime(key)
            .orElseThrow(
                () ->
                    MlbridgeException.of(
                            MlbridgeException.Kind.UNSUPPORTED, "nothing on this class path runs the format '" + key + "'")
                        .withHint("convert the package to ONNX in Python, or add the jar of a runtime"));
    Path path = opened.path(entry.path());
    return runtime.load(graph ? graphFile(path) : path, Optional.of(signature), entry.options());
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
