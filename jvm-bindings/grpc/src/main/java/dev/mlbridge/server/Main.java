package dev.mlbridge.server;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Trust;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The command line: {@code java -jar mlbridge-jvm.jar serve churn=churn.mlb}. */
public final class Main {
  private static final int USAGE = 64;
  private static final int UNFINISHED = 70;
  private static final Pattern MODEL = Pattern.compile("([\\w.\\-]+)(?:@([0-9]+))?=(.+)");
  private static final String HELP =
      """
      Usage: java -jar mlbridge-jvm.jar serve NAME[@VERSION]=SOURCE ... [options]

      Hosts models on the Open Inference Protocol v2 over gRPC until SIGTERM or SIGINT, then drains.
      SOURCE is a package (.mlb), an ONNX file with its signature, a PMML file, a saved Spark model,
      or jvm:FILE.jar#CLASS. ONNX needs com.microsoft.onnxruntime:onnxruntime on the class path, Spark its own jars:
        java -cp mlbridge-jvm.jar:onnxruntime.jar dev.mlbridge.server.Main serve churn=churn.mlb

        --grpc HOST:PORT          where to listen (default 127.0.0.1:8001; port 0 takes any free one)
        --trust data|code         code allows jars and Spark, which run code (default data)
        --option NAME.KEY=VALUE   an option of that model's runtime or class; repeated, a list
        --signature NAME=FILE     the signature, in JSON, where the source holds none (Spark)
        --default NAME=VERSION    the version that answers where a request names none (default: the highest)
        --tls-key FILE            private key in PKCS#8, PEM
        --tls-cert FILE           its certificate chain, PEM
        --tls-client-ca FILE      demand certificates of clients from this authority
        --token-file FILE         what callers must show; else the environment's MLBRIDGE_TOKEN
        --insecure                listen beyond this machine without TLS and token
        --max-queue N             requests of a model that may wait (default 128)
        --max-calls N             calls at once (default 256)
        --max-message-mib N       size of a message (default 16)
        --always-raw              answer raw also where the request was typed
        --write-signature         write the signature into ModelMetadata's properties
        --grace-s N               seconds that accepted requests have at the end (default 30)
        --help                    print this
      """;

  private final Map<String, String> sources = new LinkedHashMap<>(); // name@version to source
  private final Map<String, Map<String, String>> options = new LinkedHashMap<>();
  private final MlbridgeServer.Builder builder = MlbridgeServer.builder();
  private Trust trust = Trust.DATA;
  private Optional<Path> key = Optional.empty();
  private Optional<Path> certificate = Optional.empty();
  private Optional<Path> authority = Optional.empty();
  private Optional<String> token = Optional.ofNullable(System.getenv("MLBRIDGE_TOKEN"));
  private Duration grace = Duration.ofSeconds(30);

  private Main() {}

  /** Serves; exits with 0, 64 where the arguments do not fit, 70 where a request was cut off, else 1. */
  public static void main(String[] args) throws InterruptedException {
    Deque<String> words = new ArrayDeque<>(List.of(args));
    if (words.isEmpty() || words.contains("--help") || words.contains("-h")) {
      System.out.print(HELP);
      System.exit(words.isEmpty() ? USAGE : 0);
    }
    MlbridgeServer server = null;
    Main main = new Main();
    try {
      main.read(words);
      server = main.start();
    } catch (IllegalArgumentException e) {
      System.err.println(e.getMessage() + "\n\n" + HELP.lines().findFirst().orElseThrow() + "\n--help says more");
      System.exit(USAGE);
    } catch (MlbridgeException e) {
      System.err.println(e);
      System.exit(1);
    }
    main.drainAtEnd(server);
    System.out.println("serving on " + server.address());
    server.await();
    Thread.currentThread().join(); // the shutdown hook ends the process
  }

  /** On SIGTERM and SIGINT; the JVM's own exit code would be the signal's. */
  private void drainAtEnd(MlbridgeServer server) {
    Runtime.getRuntime()
        .addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(server.stop(grace) ? 0 : UNFINISHED), "mlbridge-drain"));
  }

  private void read(Deque<String> words) {
    if (!words.poll().equals("serve")) {
      throw new IllegalArgumentException("the only command is serve");
    }
    while (!words.isEmpty()) {
      String word = words.poll();
      if (word.startsWith("--")) {
        flag(word, words);
      } else {
        Matcher found = matched(MODEL, word, "NAME[@VERSION]=SOURCE");
        String name = found.group(1) + "@" + Optional.ofNullable(found.group(2)).orElse("1");
        if (sources.putIfAbsent(name, found.group(3)) != null) {
          throw new IllegalArgumentException(name + " is given twice");
        }
      }
    }
    if (sources.isEmpty()) {
      throw new IllegalArgumentException("there is no model to serve");
    }
  }

  private void flag(String word, Deque<String> words) {
    switch (word) {
      case "--insecure" -> builder.insecure();
      case "--always-raw" -> builder.alwaysRaw();
      case "--write-signature" -> builder.writeSignature();
      default -> setting(word, words);
    }
  }

  private void setting(String word, Deque<String> words) {
    String value = Optional.ofNullable(words.poll()).orElseThrow(() -> new IllegalArgumentException(word + " needs a value"));
    switch (word) {
      case "--grpc" -> builder.address(value);
      case "--trust" -> trust = trust(value);
      case "--option" -> option(matched(Pattern.compile("([\\w.\\-]+?)\\.([\\w]+)=(.*)", Pattern.DOTALL), value, "NAME.KEY=VALUE"));
      case "--signature" -> {
        Matcher found = matched(Pattern.compile("([\\w.\\-]+)=(.+)"), value, "NAME=FILE");
        options.computeIfAbsent(found.group(1), n -> new LinkedHashMap<>()).put("signature", text(found.group(2)));
      }
      case "--default" -> {
        Matcher found = matched(Pattern.compile("([\\w.\\-]+)=([0-9]+)"), value, "NAME=VERSION");
        builder.preferred(found.group(1), found.group(2));
      }
      case "--tls-key" -> key = Optional.of(Path.of(value));
      case "--tls-cert" -> certificate = Optional.of(Path.of(value));
      case "--tls-client-ca" -> authority = Optional.of(Path.of(value));
      case "--token-file" -> token = Optional.of(text(value).strip());
      case "--max-queue" -> builder.maxQueue(number(word, value));
      case "--max-calls" -> builder.maxCalls(number(word, value));
      case "--max-message-mib" -> builder.maxMessageMib(number(word, value));
      case "--grace-s" -> grace = Duration.ofSeconds(number(word, value));
      default -> throw new IllegalArgumentException("there is no option " + word);
    }
  }

  private void option(Matcher found) {
    options
        .computeIfAbsent(found.group(1), n -> new LinkedHashMap<>())
        .merge(found.group(2), found.group(3), (before, more) -> before + "\n" + more); // a list is one line an item
  }

  private static Trust trust(String value) {
    return switch (value.toLowerCase(Locale.ROOT)) {
      case "data" -> Trust.DATA;
      case "code" -> Trust.CODE;
      default -> throw new IllegalArgumentException("--trust is data or code");
    };
  }

  private static Matcher matched(Pattern form, String word, String shown) {
    Matcher found = form.matcher(word);
    if (!found.matches()) {
      throw new IllegalArgumentException("'" + word + "': expected " + shown);
    }
    return found;
  }

  private static int number(String word, String value) {
    try {
      return Integer.parseInt(value);
    } catch (NumberFormatException e) {
      throw new IllegalArgumentException(word + " needs a whole number, not '" + value + "'");
    }
  }

  private static String text(String file) {
    try {
      return Files.readString(Path.of(file));
    } catch (IOException e) {
      throw new IllegalArgumentException(file + " cannot be read");
    }
  }

  private MlbridgeServer start() {
    if (key.isPresent() != certificate.isPresent()) {
      throw new IllegalArgumentException("--tls-key and --tls-cert belong together");
    }
    key.ifPresent(k -> builder.tls(k, certificate.orElseThrow()));
    authority.ifPresent(builder::clientAuthority);
    token.ifPresent(builder::token);
    sources.forEach(
        (id, source) -> {
          String name = id.substring(0, id.indexOf('@'));
          Model model = Models.load(source, trust, options.getOrDefault(name, Map.of()));
          builder.owned(name, id.substring(name.length() + 1), model);
        });
    return builder.start();
  }
}
