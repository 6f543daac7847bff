package dev.mlbridge.spark;

import dev.mlbridge.Call;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.packages.Implementation;
import dev.mlbridge.packages.PackageReader;
import dev.mlbridge.packages.PackageWriter;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.util.MLWritable;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;

/** Writes fitted Spark models as packages that Python loads, converts and verifies without Spark. */
public final class Packages {
  private static final int GOLDEN_ROWS = 64;

  private Packages() {}

  /**
   * Saves a fitted model with golden rows; an older package is replaced.
   *
   * @param model a PipelineModel or another fitted model that Spark can save
   * @param path the {@code .mlb} file to make
   * @param sample real rows of the raw columns: they give the input types, and Spark's own answers to the first 64 are
   *     what every other language is held to
   * @return the signature
   */
  public static Signature save(Transformer model, Path path, Dataset<Row> sample) {
    Signature signature = SparkSignature.infer(model, sample);
    Map<String, Tensor> inputs = SparkSignature.feeds(signature, sample.limit(GOLDEN_ROWS).collectAsList());
    Map<String, Tensor> outputs = new SparkModelSession(sample.sparkSession(), model, signature).run(inputs, Call.all());
    Map<String, String> provenance = new LinkedHashMap<>();
    provenance.put("framework", "spark");
    provenance.put("spark", sample.sparkSession().version());
    provenance.put("model", model.getClass().getName());
    PackageWriter.write(
        path,
        signature,
        Optional.of(new PackageReader.Samples(inputs, outputs)),
        provenance,
        tree -> {
          write(model, tree.resolve("model/native/spark"));
          return List.of(new Implementation("jvm", "model/native/spark", "spark", Map.of()));
        });
    return signature;
  }

  private static void write(Transformer model, Path folder) throws IOException {
    if (!(model instanceof MLWritable writable)) {
      throw new IOException(model.getClass().getName() + " cannot be saved by Spark");
    }
    writable.write().overwrite().save(folder.toUri().toString());
  }
}
