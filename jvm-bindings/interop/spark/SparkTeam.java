import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Signature;
import dev.mlbridge.Trust;
import dev.mlbridge.spark.MlbridgeTransformer;
import dev.mlbridge.spark.Packages;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.ml.classification.GBTClassifier;
import org.apache.spark.ml.feature.OneHotEncoder;
import org.apache.spark.ml.feature.StringIndexer;
import org.apache.spark.ml.feature.VectorAssembler;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * A Spark team without Python. {@code save CSV FOLDER}: fits, saves gbt.mlb with {@code Packages.save} and prints Spark's own
 * probability of each row. {@code score CSV PACKAGE}: opens a package with {@code Models.load}, puts it into a Spark
 * pipeline that is saved and read again, and prints the probabilities that it scores.
 */
public final class SparkTeam {
  private SparkTeam() {}

  public static void main(String[] args) {
    SparkSession spark =
        SparkSession.builder().master("local[1]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1").getOrCreate();
    spark.sparkContext().setLogLevel("OFF");
    Dataset<Row> rows = spark.read().option("header", "true").option("inferSchema", "true").csv(args[1]).coalesce(1);
    for (String number : List.of("duration", "amount", "age")) {
      rows = rows.withColumn(number, rows.col(number).cast("double"));
    }
    if (args[0].equals("save")) {
      save(rows, Path.of(args[2]));
    } else {
      score(rows, Path.of(args[2]));
    }
    spark.stop();
  }

  private static void save(Dataset<Row> rows, Path folder) {
    Pipeline pipeline =
        new Pipeline()
            .setStages(
                new PipelineStage[] {
                  new StringIndexer().setInputCols(new String[] {"checking", "savings"}).setOutputCols(new String[] {"c", "s"}).setHandleInvalid("keep"),
                  new OneHotEncoder().setInputCols(new String[] {"c", "s"}).setOutputCols(new String[] {"cv", "sv"}),
                  new VectorAssembler().setInputCols(new String[] {"duration", "amount", "age", "cv", "sv"}).setOutputCol("features"),
                  new StringIndexer().setInputCol("risk").setOutputCol("label").setHandleInvalid("skip"),
                  new GBTClassifier().setMaxIter(5).setMaxDepth(3).setSeed(7)
                });
    PipelineModel model = pipeline.fit(rows);
    Signature signature = Packages.save(model, folder.resolve("gbt.mlb"), rows.drop("risk"));
    System.out.println("signature\t" + signature.toJson());
    print(model.transform(rows), "probability");
  }

  private static void score(Dataset<Row> rows, Path path) {
    try (Model model = Models.load(path, Trust.DATA)) {
      System.out.println("signature\t" + model.signature().toJson());
    }
    String saved = path.resolveSibling("stages").toUri().toString();
    PipelineModel made = new Pipeline().setStages(new PipelineStage[] {MlbridgeTransformer.of(path)}).fit(rows);
    try {
      made.write().overwrite().save(saved);
    } catch (java.io.IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
    print(PipelineModel.load(saved).transform(rows), "probabilities");
  }

  private static void print(Dataset<Row> made, String column) {
    String all =
        made.select(column).collectAsList().stream().map(r -> Double.toString(r.<Vector>getAs(0).apply(1))).collect(Collectors.joining(","));
    System.out.println("answers\t" + all);
  }
}
