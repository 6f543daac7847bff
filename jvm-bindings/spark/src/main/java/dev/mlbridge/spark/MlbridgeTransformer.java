package dev.mlbridge.spark;

import dev.mlbridge.Call;
import dev.mlbridge.Column;
import dev.mlbridge.DType;
import dev.mlbridge.Feeds;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import dev.mlbridge.Trust;
import java.io.IOException;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.linalg.Vectors;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.util.DefaultParamsReader;
import org.apache.spark.ml.util.DefaultParamsWritable;
import org.apache.spark.ml.util.Identifiable$;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import scala.jdk.javaapi.CollectionConverters;

/**
 * A stage that asks any mlbridge package: an R model, a network, another team's forest, in a Spark pipeline, on the
 * executors. The package must hold ONNX; ONNX Runtime's Java artifact must be on the executors' class path.
 *
 * <p>Input columns are found by the names of the model's columns. Each output becomes a column of its name: labels as
 * their values, several numbers a row as a vector.
 */
public final class MlbridgeTransformer extends Transformer implements DefaultParamsWritable {
  private static final int BATCH = 1024;
  private static final Map<String, Model> LOADED = new ConcurrentHashMap<>(); // one of each package a process

  private final String uid;
  private final Param<String> path;

  /** Makes a stage over a package. */
  public static MlbridgeTransformer of(Path path) {
    return new MlbridgeTransformer().setPath(path.toString());
  }

  /** Reads a saved stage; its package is where it was. */
  public static MlbridgeTransformer load(String folder) {
    return read().load(folder);
  }

  /** Returns a reader of saved stages. */
  public static MLReader<MlbridgeTransformer> read() {
    return new DefaultParamsReader<>();
  }

  /** Makes a stage without a package yet. */
  public MlbridgeTransformer() {
    this(Identifiable$.MODULE$.randomUID("mlbridge"));
  }

  /** Makes a stage of that uid; Spark's reader does. */
  public MlbridgeTransformer(String uid) {
    this.uid = uid;
    this.path = new Param<>(uid, "path", "the .mlb package, a file that the driver reads");
  }

  @Override
  public String uid() {
    return uid;
  }

  /** The package's path. */
  public Param<String> path() {
    return path;
  }

  /** Sets the package's path. */
  public MlbridgeTransformer setPath(String value) {
    set(path, value);
    return this;
  }

  @Override
  public MlbridgeTransformer copy(ParamMap extra) {
    return (MlbridgeTransformer) defaultCopy(extra);
  }

  @Override
  public StructType transformSchema(StructType schema) {
    return outputSchema(schema, model(bytes()).signature());
  }

  @Override
  public Dataset<Row> transform(Dataset<?> dataset) {
    byte[] bytes = bytes();
    StructType schema = outputSchema(dataset.schema(), model(bytes).signature());
    Broadcast<byte[]> shipped =
        org.apache.spark.api.java.JavaSparkContext.fromSparkContext(dataset.sparkSession().sparkContext())
            .broadcast(bytes);
    return dataset.toDF().mapPartitions(new Scoring(shipped), Encoders.row(schema));
  }

  private byte[] bytes() {
    try {
      return Files.readAllBytes(Path.of($(path)));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Model model(byte[] bytes) {
    return LOADED.computeIfAbsent(hash(bytes), key -> load(bytes));
  }

  private static Model load(byte[] bytes) {
    try {
      Path file = Files.createTempFile("mlbridge-", ".mlb");
      try {
        Files.write(file, bytes);
        return Models.load(file, Trust.DATA);
      } finally {
        Files.delete(file);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String hash(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }

  private static StructType outputSchema(StructType schema, Signature signature) {
    List<StructField> fields = new ArrayList<>(List.of(schema.fields()));
    for (TensorSpec spec : signature.outputs()) {
      fields.add(DataTypes.createStructField(spec.name(), type(spec), true));
    }
    return DataTypes.createStructType(fields);
  }

  private static DataType type(TensorSpec spec) {
    if (spec.categorical()) {
      return spec.columns().get(0).categories().orElseThrow().stream().allMatch(Long.class::isInstance)
          ? DataTypes.LongType
          : DataTypes.StringType;
    }
    if (spec.shape().size() > 1) {
      return SQLDataTypes.VectorType();
    }
    return switch (spec.dtype()) {
      case STRING -> DataTypes.StringType;
      case INT64 -> DataTypes.LongType;
      default -> DataTypes.DoubleType;
    };
  }

  /** Scores one partition, a batch of rows at a time. */
  private static final class Scoring implements MapPartitionsFunction<Row, Row>, Serializable {
    private static final long serialVersionUID = 1;

    private final Broadcast<byte[]> shipped;

    Scoring(Broadcast<byte[]> shipped) {
      this.shipped = shipped;
    }

    @Override
    public Iterator<Row> call(Iterator<Row> rows) {
      Model model = model(shipped.value());
      return new Iterator<>() {
        private Iterator<Row> ready = List.<Row>of().iterator();

        @Override
        public boolean hasNext() {
          if (!ready.hasNext() && rows.hasNext()) {
            List<Row> batch = new ArrayList<>(BATCH);
            while (rows.hasNext() && batch.size() < BATCH) {
              batch.add(rows.next());
            }
            ready = score(model, batch).iterator();
          }
          return ready.hasNext();
        }

        @Override
        public Row next() {
          if (!hasNext()) {
            throw new NoSuchElementException();
          }
          return ready.next();
        }
      };
    }
  }

  private static List<Row> score(Model model, List<Row> batch) {
    Signature signature = model.signature();
    Map<String, Tensor> feeds = Feeds.of(signature, SparkSignature.feeds(signature, batch));
    Map<String, Tensor> got = model.run(feeds, Call.all());
    List<Row> out = new ArrayList<>(batch.size());
    for (int i = 0; i < batch.size(); i++) {
      List<Object> values = new ArrayList<>(CollectionConverters.asJava(batch.get(i).toSeq()));
      for (TensorSpec spec : signature.outputs()) {
        values.add(value(spec, got.get(spec.name()), i));
      }
      out.add(RowFactory.create(values.toArray()));
    }
    return out;
  }

  private static Object value(TensorSpec spec, Tensor tensor, int row) {
    if (spec.categorical()) {
      List<Object> levels = spec.columns().get(0).categories().orElseThrow();
      int code = tensor.ints().get(row);
      Object level = code >= 0 && code < levels.size() ? levels.get(code) : null;
      return level instanceof Boolean ? Column.levelText(level) : level; // null is Spark's missing value
    }
    if (tensor.dtype() == DType.STRING) {
      return tensor.strings()[row];
    }
    if (tensor.rank() > 1) {
      int width = tensor.size() / (int) tensor.dim(0);
      double[] values = new double[width];
      for (int k = 0; k < width; k++) {
        values[k] = tensor.number(row * width + k);
      }
      return Vectors.dense(values);
    }
    return tensor.dtype() == DType.INT64 ? (Object) tensor.longs().get(row) : (Object) tensor.number(row);
  }
}
