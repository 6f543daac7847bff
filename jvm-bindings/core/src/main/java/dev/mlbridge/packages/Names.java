package dev.mlbridge.packages;

import dev.mlbridge.Json;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;

/** Which names of files a package may hold: relative, with forward slashes, creatable everywhere, each once. */
final class Names {
  private static final Pattern RESERVED = Pattern.compile("(?i)(con|prn|aux|nul|com\\d|lpt\\d)(\\..*)?");

  private Names() {}

  static void check(List<String> names) {
    Set<String> seen = new HashSet<>();
    for (String name : names) {
      check(name);
      if (!seen.add(name.toLowerCase(Locale.ROOT))) {
        throw Json.artifact("the package holds two files named '" + name + "' (upper and lower case are one)");
      }
    }
    for (String name : seen) {
      for (int slash = name.indexOf('/'); slash >= 0; slash = name.indexOf('/', slash + 1)) {
        if (seen.contains(name.substring(0, slash))) {
          throw Json.artifact("'" + name + "' lies inside another file");
        }
      }
    }
  }

  static void check(String name) {
    boolean bad = name.isEmpty() || name.indexOf('\\') >= 0 || name.indexOf('\0') >= 0 || name.indexOf(':') >= 0;
    for (String part : name.split("/", -1)) {
      bad |= part.isEmpty() || part.equals(".") || part.equals("..") || RESERVED.matcher(part).matches();
      bad |= part.endsWith(".") || part.endsWith(" ");
    }
    if (bad) {
      throw Json.artifact("the package holds a file with an unsafe name: '" + name + "'")
          .withHint("packages hold relative paths with forward slashes");
    }
  }
}
