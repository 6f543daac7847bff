package dev.mlbridge.spark;

import dev.mlbridge.Call;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.spark.ml.Transformer;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.functions;

/** A fitted Spark model as a session: rows to a local DataFrame, transform, collect. Rows Spark drops answer missing. */
public final class SparkModelSession implements Session {
  static final String ROW = "__mlbridge_row";

  private final SparkSession spark;
  private final Transformer model;
  private final Signature signature;
  private final Frames frames;
  private final Answers answers;

  /** Makes a session of a model and the signature its raw columns and answers have. */
  public SparkModelSession(SparkSession spark, Transformer model, Signature signature) {
    this.spark = spark;
    this.model = Stages.withoutLabels(model, names(signature));
    this.signature = signature;
    this.frames = new Frames(signature);
    this.answers = new Answers(model);
  }

  private static Set<String> names(Signature signature) {
    Set<String> out = new LinkedHashSet<>();
    signature.inputs().forEach(s -> {
      out.add(s.name());
      out.add(s.name().replaceFirst("_vector$", ""));
      s.columns().forEach(c -> out.add(c.name()));
    });
    return out;
  }

  @Override
  public Signature signature() {
    return signature;
  }

  @Override
  public int maxConcurrency() {
    return 1; // local mode has one thread
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) {
    int rows = frames.rows(feeds);
    List<TensorSpec> wanted = signature.outputs().stream().filter(s -> call.wants(s.name())).toList();
    Set<String> columns = new LinkedHashSet<>(Set.of(ROW));
    wanted.forEach(s -> columns.addAll(answers.columns(s)));
    Dataset<Row> made =
        model
            .transform(spark.createDataFrame(frames.table(feeds), frames.schema()))
            .select(columns.stream().map(c -> functions.col("`" + c + "`")).toArray(org.apache.spark.sql.Column[]::new));
    String group = "mlbridge-" + Thread.currentThread().getId();
    spark.sparkContext().setJobGroup(group, "mlbridge", true); // an interrupt of this thread ends the job's tasks
    List<Row> got = made.collectAsList();
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (TensorSpec spec : wanted) {
      out.put(spec.name(), answers.tensor(spec, got, rows));
    }
    return out;
  }
}
