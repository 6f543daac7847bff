package dev.mlbridge.spark;

import java.util.List;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.ml.classification.LogisticRegression;
import org.apache.spark.ml.feature.OneHotEncoder;
import org.apache.spark.ml.feature.StringIndexer;
import org.apache.spark.ml.feature.VectorAssembler;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/** A local Spark, a table with a missing number and a pipeline that drops that row. */
final class Plants {
  static final StructType SCHEMA =
      new StructType()
          .add("height", DataTypes.DoubleType)
          .add("width", DataTypes.DoubleType)
          .add("soil", DataTypes.StringType)
          .add("blooms", DataTypes.DoubleType);

  private Plants() {}

  static SparkSession spark() {
    SparkSession spark =
        SparkSession.builder()
            .master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate();
    spark.sparkContext().setLogLevel("OFF");
    return spark;
  }

  static Dataset<Row> rows() {
    return spark()
        .createDataFrame(
            List.of(
                RowFactory.create(1.0, 4.0, "clay", 0.0),
                RowFactory.create(2.5, 3.0, "sand", 1.0),
                RowFactory.create(3.0, 1.0, "loam", 1.0),
                RowFactory.create(0.5, 2.0, "clay", 0.0),
                RowFactory.create(2.0, 2.5, "loam", 0.0),
                RowFactory.create(4.0, 0.5, "sand", 1.0)),
            SCHEMA);
  }

  static PipelineModel fitted() {
    return new Pipeline()
        .setStages(
            new PipelineStage[] {
              new StringIndexer().setInputCol("soil").setOutputCol("s").setHandleInvalid("skip"),
              new OneHotEncoder().setInputCol("s").setOutputCol("sv"),
              new VectorAssembler().setInputCols(new String[] {"height", "width", "sv"}).setOutputCol("features").setHandleInvalid("skip"),
              new LogisticRegression().setLabelCol("blooms").setRegParam(0.1)
            })
        .fit(rows());
  }
}
