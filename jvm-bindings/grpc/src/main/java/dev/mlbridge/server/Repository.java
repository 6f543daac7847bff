package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.wire.Wire;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;

/** Which models are served, by name and version; they may be added, replaced and removed during traffic. */
final class Repository {
  private static final Pattern NAME = Pattern.compile("[\\w.\\-]{1,128}");
  private static final Pattern VERSION = Pattern.compile("[0-9]{1,18}");

  private static final Comparator<String> ASCENDING = // "01" is another version than "1"
      Comparator.<String>comparingLong(Long::parseLong).thenComparing(Comparator.naturalOrder());

  private final Map<String, Versions> models = new ConcurrentHashMap<>();
  private final Map<String, String> pins = new HashMap<>(); // defaults that the host named; else the highest version
  private volatile boolean draining;

  /** The versions of one name, ascending; replaced as a whole, so that readers need no lock. */
  private record Versions(TreeMap<String, Served> all, String preferred) {}

  static MlbridgeException shuttingDown() {
    return MlbridgeException.of(Kind.UNAVAILABLE, "the server is shutting down");
  }

  boolean draining() {
    return draining;
  }

  /** Returns a version, held: {@link Served#release} it. */
  Served hold(String name, String version) {
    while (true) {
      if (draining) {
        throw shuttingDown();
      }
      Served served = find(name, version).orElseThrow(() -> absent(name, version));
      if (served.hold()) {
        return served;
      }
    }
  }

  private Optional<Served> find(String name, String version) {
    if (!version.isEmpty() && !VERSION.matcher(version).matches()) {
      return Optional.empty();
    }
    return Optional.ofNullable(models.get(name)).map(v -> v.all.get(version.isEmpty() ? v.preferred : version));
  }

  private static MlbridgeException absent(String name, String version) {
    String of = version.isEmpty() ? "" : " of version " + Wire.clip(version);
    return MlbridgeException.of(Kind.NOT_FOUND, "there is no model " + Wire.clip(name) + of);
  }

  boolean ready(String name, String version) {
    return !draining && find(name, version).isPresent();
  }

  List<String> versions(String name) {
    return Optional.ofNullable(models.get(name)).map(v -> List.copyOf(v.all.keySet())).orElse(List.of());
  }

  /** Names the version that answers where a request names none. */
  synchronized void prefer(String name, String version) {
    pins.put(name, version);
    models.computeIfPresent(name, (n, old) -> made(n, old.all));
  }

  synchronized void add(Served served) {
    Versions old = models.get(served.name);
    TreeMap<String, Served> all = new TreeMap<>(ASCENDING);
    Optional.ofNullable(old).ifPresent(o -> all.putAll(o.all));
    Optional<Served> replaced = Optional.ofNullable(all.put(served.version, served));
    models.put(served.name, made(served.name, all));
    replaced.ifPresent(Served::retire);
  }

  private Versions made(String name, TreeMap<String, Served> all) {
    String pin = pins.get(name);
    return new Versions(all, pin != null && all.containsKey(pin) ? pin : all.lastKey());
  }

  static void checkNames(String name, String version) {
    if (!NAME.matcher(name).matches()) {
      throw Wire.input("model name " + Wire.clip(name) + ": letters, digits, '_', '-' and '.', at most 128");
    }
    if (!VERSION.matcher(version).matches()) {
      throw Wire.input("model " + Wire.clip(name) + ": version " + Wire.clip(version) + " is not a string of digits");
    }
  }

  /** Stops serving a model; its versions close when their last requests have ended. */
  synchronized void remove(String name) {
    Versions gone = models.remove(name);
    if (gone == null) {
      throw absent(name, "");
    }
    gone.all.values().forEach(Served::retire);
  }

  /** Returns every version of every model. */
  List<Served> served() {
    List<Served> out = new ArrayList<>();
    models.values().forEach(v -> out.addAll(v.all.values()));
    return out;
  }

  /** Takes no more requests and waits for those that were accepted; whether all ended. */
  boolean drain(long timeoutNs) throws InterruptedException {
    draining = true;
    List<Served> all = served();
    all.forEach(Served::drain);
    long until = System.nanoTime() + timeoutNs;
    boolean ended = true;
    for (Served s : all) {
      ended &= s.await(until);
    }
    return ended;
  }

  void close() {
    List.copyOf(models.keySet()).forEach(this::remove);
  }
}
