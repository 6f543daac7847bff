package dev.mlbridge.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.Tensor;
import dev.mlbridge.Trust;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The package is the one that core's tests use; scikit-learn made it. */
class MlbridgeTransformerTest {
  private static final Path FOREST = Path.of("../core/src/test/resources/forest.mlb").toAbsolutePath();
  private static final StructType SCHEMA =
      new StructType().add("id", DataTypes.LongType).add("age", DataTypes.DoubleType).add("income", DataTypes.DoubleType).add("size", "string");

  @TempDir Path folder;

  private static Dataset<Row> rows() {
    return Plants.spark()
        .createDataFrame(
            List.of(
                RowFactory.create(7L, 2.0, -1.0, "größer"),
                RowFactory.create(8L, -2.0, 0.5, "S"),
                RowFactory.create(9L, 0.25, 1.5, "M")),
            SCHEMA);
  }

  @Test
  void aSavedPipelineScoresAsThePackageDoes() throws IOException {
    PipelineModel made = new Pipeline().setStages(new PipelineStage[] {MlbridgeTransformer.of(FOREST)}).fit(rows());
    String saved = folder.resolve("stages").toUri().toString();
    made.write().save(saved);
    List<Row> got = PipelineModel.load(saved).transform(rows()).collectAsList();
    try (Model model = Models.load(FOREST, Trust.DATA)) {
      Map<String, Tensor> want =
          model.predict(
              Map.of(
                  "age", Tensor.of(new double[] {2, -2, 0.25}, 3),
                  "income", Tensor.of(new double[] {-1, 0.5, 1.5}, 3),
                  "size", Tensor.ofStrings(new String[] {"größer", "S", "M"}, 3)));
      for (int i = 0; i < 3; i++) {
        assertEquals(7 + i, got.get(i).<Long>getAs("id"));
        assertEquals(want.get("label").strings()[i], got.get(i).getAs("label"));
        double[] row = new double[3];
        want.get("probabilities").doubles().get(3 * i, row);
        assertArrayEquals(row, got.get(i).<Vector>getAs("probabilities").toArray());
      }
    }
  }

  @Test
  void theSchemaGainsTheOutputs() {
    StructType schema = MlbridgeTransformer.of(FOREST).transformSchema(SCHEMA);
    assertEquals(List.of("id", "age", "income", "size", "label", "probabilities"), List.of(schema.fieldNames()));
    assertEquals(DataTypes.StringType, schema.apply("label").dataType());
  }

  @Test
  void aColumnThatIsAbsentIsNamed() {
    Dataset<Row> scored = MlbridgeTransformer.of(FOREST).transform(rows().drop("income"));
    Exception raised = assertThrows(Exception.class, scored::collectAsList);
    StringBuilder said = new StringBuilder();
    for (Throwable t = raised; t != null; t = t.getCause()) {
      said.append(t.getMessage()).append('\n');
    }
    assertTrue(said.toString().contains("income"), said.toString());
  }

  @Test
  void aPackageThatIsAbsentIsRefused() {
    MlbridgeTransformer stage = MlbridgeTransformer.of(folder.resolve("absent.mlb"));
    assertThrows(UncheckedIOException.class, () -> stage.transformSchema(SCHEMA));
  }
}
