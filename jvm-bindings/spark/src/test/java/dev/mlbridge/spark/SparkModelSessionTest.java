package dev.mlbridge.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.mlbridge.Call;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.junit.jupiter.api.Test;

class SparkModelSessionTest {
  private final PipelineModel model = Plants.fitted();
  private final Signature signature = SparkSignature.infer(model, Plants.rows().drop("blooms"));
  private final SparkModelSession session = new SparkModelSession(Plants.spark(), model, signature);

  private static Dataset<Row> table(Row... rows) {
    return Plants.spark().createDataFrame(List.of(rows), Plants.SCHEMA);
  }

  private Map<String, Tensor> ask(Dataset<Row> table, Call call) {
    return session.run(SparkSignature.feeds(signature, table.collectAsList()), call);
  }

  @Test
  void itAnswersAsTransform() {
    Map<String, Tensor> got = ask(Plants.rows(), Call.all());
    List<Row> want = model.transform(Plants.rows()).select("prediction", "probability").collectAsList();
    for (int i = 0; i < want.size(); i++) {
      assertEquals((int) want.get(i).getDouble(0), got.get("label").ints().get(i));
      assertEquals(want.get(i).<Vector>getAs(1).apply(0), got.get("probabilities").doubles().get(2 * i));
    }
  }

  @Test
  void aRowThatSparkDropsAnswersMissingAndTheOthersKeepTheirPlaces() {
    Row good = RowFactory.create(1.0, 4.0, "clay", 0.0);
    Tensor alone = ask(table(good), Call.all()).get("probabilities");
    Map<String, Tensor> got =
        ask(table(RowFactory.create(Double.NaN, 1.0, "sand", 0.0), good, RowFactory.create(1.0, 1.0, null, 0.0)), Call.all());
    assertEquals(-1, got.get("label").ints().get(0));
    double[] probabilities = got.get("probabilities").toDoubles();
    assertTrue(Double.isNaN(probabilities[0]) && Double.isNaN(probabilities[5]));
    assertArrayEquals(alone.toDoubles(), new double[] {probabilities[2], probabilities[3]});
  }

  @Test
  void zeroRowsInZeroRowsOut() {
    Map<String, Tensor> got = ask(table(), Call.all());
    assertArrayEquals(new long[] {0}, got.get("label").shape());
    assertArrayEquals(new long[] {0, 2}, got.get("probabilities").shape());
  }

  @Test
  void outputsAskedForComeAlone() {
    Call call = Call.of(List.of("label"), Optional.empty());
    assertEquals(Set.of("label"), ask(Plants.rows(), call).keySet());
  }

  @Test
  void theSignatureNamesTheRawColumnsAndTheirLevels() {
    List<String> columns = new ArrayList<>();
    signature.inputs().forEach(s -> s.columns().forEach(c -> columns.add(c.name())));
    assertEquals(Set.of("height", "width", "soil"), Set.copyOf(columns));
    assertEquals(List.of("label", "probabilities"), signature.outputs().stream().map(s -> s.name()).toList());
  }
}
