package dev.mlbridge.packages;

import dev.mlbridge.Json;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Tensor;
import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameReader;
import dev.mlbridge.frames.FrameType;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Enumeration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/**
 * An opened package: its manifest and a private copy of its files, every hash checked. Nothing in it was executed.
 * Close it when nothing reads the copy any more.
 */
public final class PackageReader implements AutoCloseable {
  private static final int MAX_MANIFEST = 64 << 20; // a manifest is text; more is an attack
  private static final int MAX_ENTRIES = 100_000;
  private static final long MAX_FILE = 16L << 30;
  private static final int MAX_SAMPLES = 16 << 20;

  private final Path folder;
  private final Manifest manifest;

  private PackageReader(Path folder, Manifest manifest) {
    this.folder = folder;
    this.manifest = manifest;
  }

  /**
   * Opens a package, a zip or a folder.
   *
   * @throws MlbridgeException (ArtifactError) if a hash, a size, a name or the manifest is wrong or newer
   */
  public static PackageReader open(Path source) {
    if (!Files.exists(source)) {
      throw MlbridgeException.of(Kind.NOT_FOUND, source + ": no such file or folder");
    }
    Path folder = temporary();
    try {
      return new PackageReader(folder, Files.isDirectory(source) ? copied(source, folder) : unpacked(source, folder));
    } catch (IOException | IllegalArgumentException e) {
      delete(folder);
      throw Json.artifact(source + ": a broken package: " + e.getMessage()).withCause(e);
    } catch (RuntimeException e) {
      delete(folder);
      throw e;
    }
  }

  private static Path temporary() {
    try {
      return Files.createTempDirectory("mlbridge-");
    } catch (IOException e) {
      throw MlbridgeException.of(Kind.UNAVAILABLE, "no temporary folder: " + e.getMessage()).withCause(e);
    }
  }

  private static Manifest unpacked(Path source, Path folder) throws IOException {
    try (ZipFile zip = new ZipFile(source.toFile())) {
      if (zip.size() > MAX_ENTRIES) {
        throw Json.artifact("more than " + MAX_ENTRIES + " entries");
      }
      List<String> names = new ArrayList<>();
      for (Enumeration<? extends ZipEntry> all = zip.entries(); all.hasMoreElements(); ) {
        ZipEntry entry = all.nextElement();
        if (!entry.isDirectory()) {
          names.add(entry.getName());
        }
      }
      Names.check(names);
      byte[] raw = raw(Optional.ofNullable(zip.getEntry(Manifest.FILE)), zip);
      Manifest manifest = Manifest.parse(new String(raw, StandardCharsets.UTF_8));
      compare(names, manifest);
      for (Map.Entry<String, Manifest.FileEntry> file : manifest.files().entrySet()) {
        try (InputStream in = zip.getInputStream(zip.getEntry(file.getKey()))) {
          copy(in, folder, file.getKey(), file.getValue());
        }
      }
      return manifest;
    }
  }

  private static byte[] raw(Optional<ZipEntry> entry, ZipFile zip) throws IOException {
    try (InputStream in = zip.getInputStream(entry.orElseThrow(() -> Json.artifact("has no " + Manifest.FILE)))) {
      byte[] raw = in.readNBytes(MAX_MANIFEST + 1);
      if (raw.length > MAX_MANIFEST) {
        throw Json.artifact(Manifest.FILE + " is larger than " + MAX_MANIFEST + " bytes");
      }
      return raw;
    }
  }

  private static Manifest copied(Path source, Path folder) throws IOException {
    List<String> names = new ArrayList<>();
    Files.walkFileTree(
        source,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
            if (!attributes.isRegularFile()) { // a link is not followed: it is seen here
              throw Json.artifact("holds a link or special file: " + source.relativize(file));
            }
            if (names.size() > MAX_ENTRIES) {
              throw Json.artifact("more than " + MAX_ENTRIES + " entries");
            }
            names.add(source.relativize(file).toString().replace('\\', '/'));
            return FileVisitResult.CONTINUE;
          }
        });
    Names.check(names);
    Path path = source.resolve(Manifest.FILE);
    if (!names.contains(Manifest.FILE) || Files.size(path) > MAX_MANIFEST) {
      throw Json.artifact("has no " + Manifest.FILE + " of a sane size");
    }
    Manifest manifest = Manifest.parse(Files.readString(path));
    compare(names, manifest);
    for (Map.Entry<String, Manifest.FileEntry> file : manifest.files().entrySet()) {
      try (InputStream in = Files.newInputStream(source.resolve(file.getKey()), LinkOption.NOFOLLOW_LINKS)) {
        copy(in, folder, file.getKey(), file.getValue());
      }
    }
    return manifest;
  }

  private static void compare(List<String> names, Manifest manifest) {
    Set<String> stray = new TreeSet<>(names);
    stray.removeAll(manifest.files().keySet());
    stray.remove(Manifest.FILE);
    Set<String> absent = new TreeSet<>(manifest.files().keySet());
    absent.removeAll(names);
    if (!stray.isEmpty() || !absent.isEmpty()) {
      throw Json.artifact("the package holds files its manifest does not list, or lacks some: " + stray + absent)
          .withHint("the package was damaged or changed");
    }
  }

  private static void copy(InputStream in, Path folder, String name, Manifest.FileEntry want) throws IOException {
    Path target = folder.resolve(name);
    Files.createDirectories(target.getParent());
    MessageDigest digest = sha256();
    long left = want.size();
    try (OutputStream out =
        new DigestOutputStream(Files.newOutputStream(target, StandardOpenOption.CREATE_NEW), digest)) {
      byte[] chunk = new byte[1 << 16];
      for (int n = in.read(chunk); n >= 0; n = in.read(chunk)) {
        left -= n;
        if (left < 0 || want.size() > MAX_FILE) {
          break;
        }
        out.write(chunk, 0, n);
      }
    }
    if (left != 0) {
      throw Json.artifact("'" + name + "' is not the size its manifest says").withHint("the package was damaged or changed");
    }
    if (!HexFormat.of().formatHex(digest.digest()).equals(want.sha256())) {
      throw Json.artifact("'" + name + "' is not what was saved: its sha256 differs")
          .withHint("the package was damaged or changed");
    }
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }

  /** Returns the manifest. */
  public Manifest manifest() {
    return manifest;
  }

  /** Returns the private copy of a file or folder. */
  public Path path(String name) {
    return folder.resolve(name);
  }

  /** Returns the golden inputs and outputs, if the package holds some. */
  public Optional<Samples> samples() {
    Path inputs = folder.resolve("samples/inputs.mlbf");
    Path outputs = folder.resolve("samples/outputs.mlbf");
    if (!Files.exists(inputs) || !Files.exists(outputs)) {
      return Optional.empty();
    }
    return Optional.of(new Samples(sample(inputs, FrameType.RUN), sample(outputs, FrameType.RESULT)));
  }

  /** Golden rows. */
  public record Samples(Map<String, Tensor> inputs, Map<String, Tensor> outputs) {}

  private static Map<String, Tensor> sample(Path file, FrameType type) {
    try {
      if (Files.size(file) > MAX_SAMPLES) {
        throw Json.artifact("the samples are larger than " + MAX_SAMPLES + " bytes");
      }
      Frame frame = FrameReader.read(ByteBuffer.wrap(Files.readAllBytes(file)));
      if (frame.type() != type) {
        throw Json.artifact("the samples are not a RUN and a RESULT frame");
      }
      return frame.tensors();
    } catch (IOException e) {
      throw Json.artifact("the samples cannot be read: " + e.getMessage()).withCause(e);
    }
  }

  @Override
  public void close() {
    delete(folder);
  }

  static void delete(Path folder) {
    try {
      Files.walkFileTree(
          folder,
          new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
              Files.delete(file);
              return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult postVisitDirectory(Path dir, IOException e) throws IOException {
              Files.delete(dir);
              return FileVisitResult.CONTINUE;
            }
          });
    } catch (IOException left) {
      folder.toFile().deleteOnExit(); // the system's own cleaning takes what is left
    }
  }

  static void replace(Path from, Path to) throws IOException {
    Files.move(from, to, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
  }
}
