package dev.mlbridge;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.ZipFile;

/** What a source is: an address, or a file or folder whose format its content tells. */
final class Sources {
  private static final Pattern ADDRESS = Pattern.compile("([a-z][a-z0-9+]+)://(.*)");
  private static final Pattern JVM = Pattern.compile("jvm:([^#]*)(?:#(.+))?");
  private static final int HEAD = 4096; // bytes that tell a format

  private Sources() {}

  /** Something served elsewhere. */
  record Address(String scheme, String rest) {}

  /** A file or folder; the member is the class in a jar. */
  record Local(Path path, Optional<String> member) {}

  static Optional<Address> address(String source) {
    Matcher found = ADDRESS.matcher(source);
    return found.matches() ? Optional.of(new Address(found.group(1), found.group(2))) : Optional.empty();
  }

  /** Reads {@code path} or {@code jvm:path#class}. */
  static Local local(String source) {
    Matcher found = JVM.matcher(source);
    return found.matches()
        ? new Local(Path.of(found.group(1)), Optional.ofNullable(found.group(2)))
        : new Local(Path.of(source), Optional.empty());
  }

  /** Returns {@code mlb}, {@code jar}, {@code spark}, {@code pmml}, or {@code onnx} for everything else. */
  static String format(Path path) {
    if (!Files.exists(path)) {
      throw MlbridgeException.of(MlbridgeException.Kind.NOT_FOUND, path + ": no such file or folder");
    }
    try {
      return Files.isDirectory(path) ? folder(path) : file(path);
    } catch (IOException e) {
      throw Json.artifact(path + ": cannot be read: " + e.getMessage()).withCause(e);
    }
  }

  private static String folder(Path path) throws IOException {
    if (Files.isDirectory(path.resolve("metadata"))) {
      try (DirectoryStream<Path> parts = Files.newDirectoryStream(path.resolve("metadata"), "part-*")) {
        return parts.iterator().hasNext() ? "spark" : "mlb";
      }
    }
    return "mlb";
  }

  private static String file(Path path) throws IOException {
    byte[] head;
    try (InputStream in = Files.newInputStream(path)) {
      head = in.readNBytes(HEAD);
    }
    if (head.length > 1 && Arrays.equals(Arrays.copyOf(head, 2), new byte[] {'P', 'K'})) {
      return isJar(path) ? "jar" : "mlb";
    }
    String text = new String(head, StandardCharsets.UTF_8).replace("\uFEFF", "").stripLeading();
    return text.startsWith("<") && text.contains("<PMML") ? "pmml" : "onnx";
  }

  private static boolean isJar(Path path) {
    try (ZipFile zip = new ZipFile(path.toFile())) {
      return zip.getEntry("mlbridge.json") == null && zip.getEntry("META-INF/MANIFEST.MF") != null;
    } catch (IOException e) {
      return false; // the reader of packages says what is wrong with it
    }
  }
}
