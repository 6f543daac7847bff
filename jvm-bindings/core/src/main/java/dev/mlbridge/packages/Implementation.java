package dev.mlbridge.packages;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/**
 * One way to run a package's model: an entry of its manifest.
 *
 * @param runtime name of the runtime that runs it
 * @param path file or folder, relative, with forward slashes
 * @param format what the file is
 * @param options keywords of the runtime, as text
 * @param tolerance the relative error its conversion was verified at; shown, believed only within reason
 */
public record Implementation(
    String runtime, String path, String format, Map<String, String> options, Optional<Double> tolerance) {
  /** Makes an entry without a tolerance. */
  public Implementation(String runtime, String path, String format, Map<String, String> options) {
    this(runtime, path, format, options, Optional.empty());
  }

  Map<String, Object> toMap() {
    Map<String, Object> out = new LinkedHashMap<>();
    out.put("runtime", runtime);
    out.put("path", path);
    out.put("format", format);
    out.put("options", options);
    out.put("requires", Map.of("java", System.getProperty("java.specification.version")));
    return out;
  }
}
