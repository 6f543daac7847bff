package dev.mlbridge.packages;

import dev.mlbridge.Json;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Signature;
import dev.mlbridge.SignatureJson;
import dev.mlbridge.Tensor;
import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameType;
import dev.mlbridge.frames.FrameWriter;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

/** Writes a {@code .mlb} file that every language reads; an interrupted write leaves what was there as it was. */
public final class PackageWriter {
  private PackageWriter() {}

  /** Writes implementations under a folder and returns their entries. */
  public interface Content {
    /** Writes under {@code tree}. */
    List<Implementation> write(Path tree) throws IOException;
  }

  /**
   * Writes a package.
   *
   * @param target the file to make; an older one is replaced
   * @param signature the model's
   * @param samples golden rows, if there are some
   * @param provenance where the model came from: names and text
   * @param content writes the implementations
   */
  public static void write(
      Path target,
      Signature signature,
      Optional<PackageReader.Samples> samples,
      Map<String, String> provenance,
      Content content) {
    Path absolute = target.toAbsolutePath();
    try {
      Files.createDirectories(absolute.getParent());
      Path work = Files.createTempDirectory(absolute.getParent(), "." + absolute.getFileName() + ".");
      try {
        Path tree = Files.createDirectory(work.resolve("tree"));
        List<Implementation> implementations = content.write(tree);
        if (samples.isPresent()) {
          sample(tree.resolve("samples/inputs.mlbf"), FrameType.RUN, samples.get().inputs());
          sample(tree.resolve("samples/outputs.mlbf"), FrameType.RESULT, samples.get().outputs());
        }
        String name = absolute.getFileName().toString().replaceFirst("\\.mlb$", "");
        Files.writeString(tree.resolve("README.md"), "# " + name + "\n\n    " + signature + "\n");
        manifest(tree, name, signature, implementations, provenance);
        Path zip = work.resolve("package");
        zipped(tree, zip);
        try (FileChannel written = FileChannel.open(zip, StandardOpenOption.WRITE)) {
          written.force(true);
        }
        PackageReader.replace(zip, absolute);
      } finally {
        PackageReader.delete(work);
      }
    } catch (IOException e) {
      throw MlbridgeException.of(Kind.ARTIFACT, target + ": cannot be written: " + e)
          .withHint("what was there before is intact")
          .withCause(e);
    }
  }

  private static void sample(Path file, FrameType type, Map<String, Tensor> tensors) throws IOException {
    Files.createDirectories(file.getParent());
    ByteBuffer bytes = FrameWriter.write(new Frame(type, 0, tensors));
    Files.write(file, bytes.array());
  }

  private static void manifest(
      Path tree, String name, Signature signature, List<Implementation> implementations, Map<String, String> provenance)
      throws IOException {
    Map<String, Object> files = new LinkedHashMap<>();
    for (String file : names(tree)) {
      Names.check(file);
      byte[] bytes = Files.readAllBytes(tree.resolve(file));
      Map<String, Object> entry = new LinkedHashMap<>();
      entry.put("sha256", HexFormat.of().formatHex(PackageReader.sha256().digest(bytes)));
      entry.put("size", (long) bytes.length);
      files.put(file, entry);
    }
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("format_version", Manifest.FORMAT_VERSION);
    out.put("name", name);
    out.put("version", "1");
    out.put("created", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
    out.put("description", "");
    out.put("signature", SignatureJson.toMap(signature));
    out.put("implementations", implementations.stream().map(Implementation::toMap).toList());
    out.put("provenance", provenance);
    out.put("files", files);
    StringBuilder text = new StringBuilder();
    Json.write(text, out);
    Files.writeString(tree.resolve(Manifest.FILE), text);
  }

  private static List<String> names(Path tree) throws IOException {
    try (Stream<Path> all = Files.walk(tree)) {
      return all.filter(Files::isRegularFile)
          .map(p -> tree.relativize(p).toString().replace('\\', '/'))
          .sorted()
          .toList();
    }
  }

  /** Stores the tree uncompressed, the manifest first, so that loaders can map it. */
  private static void zipped(Path tree, Path target) throws IOException {
    List<String> names = new java.util.ArrayList<>(names(tree));
    names.remove(Manifest.FILE);
    names.add(0, Manifest.FILE);
    try (OutputStream file = Files.newOutputStream(target);
        ZipOutputStream zip = new ZipOutputStream(file)) {
      zip.setMethod(ZipOutputStream.STORED);
      for (String name : names) {
        byte[] bytes = Files.readAllBytes(tree.resolve(name));
        CRC32 crc = new CRC32();
        crc.update(bytes);
        ZipEntry entry = new ZipEntry(name);
        entry.setSize(bytes.length);
        entry.setCompressedSize(bytes.length);
        entry.setCrc(crc.getValue());
        zip.putNextEntry(entry);
        zip.write(bytes);
        zip.closeEntry();
      }
    }
  }
}
