package dev.mlbridge.spark;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Runtime;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.spark.ml.Transformer;
import org.apache.spark.sql.SparkSession;

/** Hosts saved Spark models in Spark's local mode, for stages that have no ONNX form. */
public final class SparkRuntime implements Runtime {
  private static final Pattern CLASS = Pattern.compile("\"class\"\\s*:\\s*\"([\\w.$]+)\"");

  @Override
  public String name() {
    return "spark";
  }

  @Override
  public Set<String> formats() {
    return Set.of("spark");
  }

  @Override
  public Session load(Path path, Optional<Signature> signature, Map<String, String> options) {
    Signature known =
        signature.orElseThrow(
            () ->
                MlbridgeException.of(Kind.SIGNATURE, "a Spark folder holds no input types")
                    .withHint("give a signature, or a sample to infer one from"));
    SparkSession spark = Local.session();
    return new SparkModelSession(spark, read(path), known);
  }

  /** Reads a saved model of any class; ArtifactError where Spark cannot. */
  static Transformer read(Path path) {
    String name = className(path);
    try {
      Object made = Class.forName(name).getMethod("load", String.class).invoke(null, path.toUri().toString());
      if (made instanceof Transformer model) {
        return model;
      }
      throw refuse(name + " is no fitted model");
    } catch (InvocationTargetException e) {
      throw refuse("Spark does not load it: " + e.getCause()).withCause(e.getCause());
    } catch (ReflectiveOperationException e) {
      throw refuse("its class is not on the class path: " + name)
          .withHint("add the jar that holds it to the option 'classpath'")
          .withCause(e);
    }
  }

  private static String className(Path path) {
    try (DirectoryStream<Path> files = Files.newDirectoryStream(path.resolve("metadata"), "part-*")) {
      for (Path file : files) {
        Matcher found = CLASS.matcher(Files.readString(file));
        if (found.find()) { // PySpark's own pipelines have the same layout under a Python name
          return found.group(1).startsWith("pyspark.ml.pipeline.")
              ? "org.apache.spark.ml." + found.group(1).substring("pyspark.ml.pipeline.".length())
              : found.group(1);
        }
      }
    } catch (IOException e) {
      throw refuse("its metadata cannot be read: " + e).withCause(e);
    }
    throw refuse("its metadata names no class");
  }

  private static MlbridgeException refuse(String text) {
    return MlbridgeException.of(Kind.ARTIFACT, "the Spark folder: " + text);
  }

  /** The one Spark of this process. */
  private static final class Local {
    private Local() {}

    static synchronized SparkSession session() {
      return SparkSession.builder()
          .appName("mlbridge")
          .master("local[1]")
          .config("spark.ui.enabled", "false")
          .config("spark.driver.host", "127.0.0.1")
          .config("spark.driver.bindAddress", "127.0.0.1")
          .config("spark.authenticate", "true") // its ports answer nobody without this process's own secret
          .config("spark.sql.shuffle.partitions", "1")
          .config("spark.sql.codegen.wholeStage", "false") // compiling costs more than a few rows ever win back
          .getOrCreate();
    }
  }
}
