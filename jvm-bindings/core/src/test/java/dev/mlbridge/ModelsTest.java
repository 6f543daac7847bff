package dev.mlbridge;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.mlbridge.packages.Implementation;
import dev.mlbridge.packages.PackageReader;
import dev.mlbridge.packages.PackageWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The packages come from Python: {@code make_packages.py}. */
class ModelsTest {
  @TempDir Path folder;

  private static Path resource(String name) {
    return Path.of("src/test/resources", name);
  }

  @ParameterizedTest
  @ValueSource(strings = {"linear.mlb", "forest.mlb", "types.mlb"})
  void aPackageOfPythonAnswersItsGoldenRows(String name) {
    try (PackageReader opened = PackageReader.open(resource(name));
        Model model = Models.load(resource(name), Trust.DATA)) {
      PackageReader.Samples samples = opened.samples().orElseThrow();
      Map<String, Tensor> got = model.run(samples.inputs(), Call.all());
      samples.outputs().forEach((output, want) -> assertTrue(Parity.holds(want, got.get(output), 1e-9), output));
      assertEquals("onnx: the package's verified ONNX", model.route());
    }
  }

  @Test
  void predictTakesColumnsAndAnswersLevels() {
    try (Model model = Models.load(resource("forest.mlb"), Trust.DATA)) {
      Map<String, Tensor> row =
          Map.of(
              "age", Tensor.of(new int[] {2, -2}, 2),
              "income", Tensor.of(new double[] {-1, Double.NaN}, 2, 1),
              "size", Tensor.ofStrings(new String[] {"größer", "S"}, 2));
      Map<String, Tensor> got = model.predict(row);
      assertEquals("yes", got.get("label").strings()[0]);
      assertArrayEquals(new long[] {2, 3}, got.get("probabilities").shape());
    }
  }

  @Test
  void allProblemsOfOneInputComeAtOnce() {
    try (Model model = Models.load(resource("forest.mlb"), Trust.DATA)) {
      List<String> problems =
          model.check(
              Map.of(
                  "age", Tensor.ofStrings(new String[] {"x"}, 1),
                  "size", Tensor.ofStrings(new String[] {"XXL"}, 1),
                  "colour", Tensor.of(new double[1], 1)));
      assertEquals(4, problems.size(), problems.toString());
      assertTrue(problems.stream().anyMatch(p -> p.contains("XXL")));
      assertTrue(problems.stream().anyMatch(p -> p.contains("income")));
      assertTrue(problems.stream().anyMatch(p -> p.contains("colour")));
    }
  }

  @Test
  void anIntegerThatIsNotExactAsADoubleIsRefused() {
    try (Model model = Models.load(resource("linear.mlb"), Trust.DATA)) {
      Tensor large = Tensor.of(new long[] {(1L << 53) + 1, 0, 0}, 1, 3);
      assertFalse(model.check(Map.of("features", large)).isEmpty());
    }
  }

  @Test
  void zeroRowsInZeroRowsOut() {
    try (Model model = Models.load(resource("linear.mlb"), Trust.DATA)) {
      assertEquals(0, model.predict(Map.of("features", Tensor.of(new double[0], 0, 3))).get("prediction").size());
    }
  }

  @Test
  void useAfterCloseIsRefused() {
    Model model = Models.load(resource("linear.mlb"), Trust.DATA);
    model.close();
    model.close();
    MlbridgeException e =
        assertThrows(MlbridgeException.class, () -> model.predict(Map.of("features", Tensor.of(new double[3], 1, 3))));
    assertEquals(MlbridgeException.Kind.CLOSED, e.kind());
  }

  @Test
  void aFlippedByteInAnyFileIsRefused() throws IOException {
    try (ZipFile zip = new ZipFile(resource("linear.mlb").toFile())) {
      for (var names = zip.entries(); names.hasMoreElements(); ) {
        String name = names.nextElement().getName();
        Path changed = rewritten(name, name, true);
        MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load(changed, Trust.DATA), name);
        assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind(), name);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"../evil", "/etc/evil", "a\\b", "c:evil", "model/./x", "con", "readme.MD", "README.md/x"})
  void unsafeNamesAreRefused(String name) throws IOException {
    Path changed = rewritten("report/parity.json", name, false);
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load(changed, Trust.DATA));
    assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind());
  }

  private Path rewritten(String entry, String as, boolean flip) throws IOException {
    Path out = Files.createTempFile(folder, "changed", ".mlb");
    try (ZipFile zip = new ZipFile(resource("linear.mlb").toFile());
        ZipOutputStream to = new ZipOutputStream(Files.newOutputStream(out))) {
      for (var all = zip.entries(); all.hasMoreElements(); ) {
        ZipEntry old = all.nextElement();
        byte[] bytes = zip.getInputStream(old).readAllBytes();
        boolean chosen = old.getName().equals(entry);
        if (chosen && flip) {
          bytes[bytes.length / 2] ^= 0x55;
        }
        to.putNextEntry(new ZipEntry(chosen ? as : old.getName()));
        to.write(bytes);
        to.closeEntry();
      }
    }
    return out;
  }

  @Test
  void whatIsWrittenHereIsReadHere() {
    Path target = folder.resolve("own.mlb");
    Signature signature;
    try (PackageReader opened = PackageReader.open(resource("linear.mlb"))) {
      signature = opened.manifest().signature();
      PackageWriter.write(
          target,
          signature,
          opened.samples(),
          Map.of("framework", "none"),
          tree -> {
            Files.createDirectories(tree.resolve("model/onnx"));
            Files.copy(opened.path("model/onnx/model.onnx"), tree.resolve("model/onnx/model.onnx"));
            return List.of(new Implementation("onnx", "model/onnx/model.onnx", "onnx", Map.of()));
          });
    }
    try (Model model = Models.load(target, Trust.DATA)) {
      assertEquals(signature, model.signature());
    }
  }

  @Test
  void codeIsNotRunBelowItsTrust() {
    Path target = folder.resolve("jar.mlb");
    PackageWriter.write(
        target,
        new Signature(List.of(), List.of(TensorSpec.of("y", DType.FLOAT64))),
        Optional.empty(),
        Map.of(),
        tree -> {
          Files.createDirectories(tree.resolve("model/native"));
          Files.writeString(tree.resolve("model/native/m.jar"), "x");
          return List.of(new Implementation("jvm", "model/native/m.jar", "jar", Map.of()));
        });
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load(target, Trust.DATA));
    assertEquals(StatusCode.PERMISSION_DENIED, e.code());
    assertThrows(MlbridgeException.class, () -> Models.load(target, Trust.CODE)); // nothing here runs jars
  }

  @Test
  void dataOutsideAnOnnxFileIsRefused() {
    // ModelProto{graph{initializer{external_data{key: "location"}, data_location: EXTERNAL}}}, by hand
    byte[] external = {'j', 10, 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n', '/', 'x'};
    byte[] tensor = field(13, external);
    byte[] model = field(7, field(5, tensor));
    Path file = folder.resolve("external.onnx");
    write(file, model);
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load(file, Trust.DATA));
    assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind());
    assertTrue(e.getMessage().contains("outside"), e.getMessage());
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 17, 400, 900})
  void aTruncatedOnnxFileIsAnArtifactError(int length) throws IOException {
    byte[] whole;
    try (PackageReader opened = PackageReader.open(resource("linear.mlb"))) {
      whole = Files.readAllBytes(opened.path("model/onnx/model.onnx"));
    }
    Path file = folder.resolve("cut.onnx");
    write(file, java.util.Arrays.copyOf(whole, Math.min(length, whole.length - 1)));
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load(file, Trust.DATA));
    assertTrue(
        e.kind() == MlbridgeException.Kind.ARTIFACT || e.kind() == MlbridgeException.Kind.SIGNATURE, e.toString());
  }

  @Test
  void anAbsentFileIsNotFound() {
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Models.load("absent.mlb"));
    assertEquals(StatusCode.NOT_FOUND, e.code());
  }

  private static byte[] field(int number, byte[] content) {
    byte[] out = new byte[2 + content.length];
    out[0] = (byte) (number << 3 | 2);
    out[1] = (byte) content.length;
    System.arraycopy(content, 0, out, 2, content.length);
    return out;
  }

  private static void write(Path file, byte[] bytes) {
    try {
      Files.write(file, bytes);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
