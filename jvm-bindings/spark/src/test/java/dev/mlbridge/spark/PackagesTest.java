package dev.mlbridge.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.mlbridge.Call;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameReader;
import dev.mlbridge.frames.FrameType;
import dev.mlbridge.frames.FrameWriter;
import dev.mlbridge.packages.PackageReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PackagesTest {
  @TempDir Path folder;

  @Test
  void aPackageHoldsTheFolderTheSignatureAndSparksOwnAnswers() {
    PipelineModel model = Plants.fitted();
    Dataset<Row> sample = Plants.rows().drop("blooms");
    Signature signature = Packages.save(model, folder.resolve("plants.mlb"), sample);
    try (PackageReader opened = PackageReader.open(folder.resolve("plants.mlb"))) {
      assertEquals(signature.toJson(), opened.manifest().signature().toJson());
      assertEquals("spark", opened.manifest().implementations().get(0).format());
      PackageReader.Samples golden = opened.samples().orElseThrow();
      Tensor probabilities = golden.outputs().get("probabilities");
      List<Row> want = model.transform(sample).select("probability").collectAsList();
      for (int i = 0; i < want.size(); i++) {
        assertEquals(want.get(i).<Vector>getAs(0).apply(1), probabilities.doubles().get(2 * i + 1));
      }
      PipelineModel again = PipelineModel.load(opened.path("model/native/spark").toUri().toString());
      SparkModelSession session = new SparkModelSession(Plants.spark(), again, signature);
      assertEquals(golden.outputs(), session.run(golden.inputs(), Call.all()));
    }
  }

  @Test
  void goldenRowsAreTheFramesThatEveryLanguageWrites() throws IOException {
    Packages.save(Plants.fitted(), folder.resolve("plants.mlb"), Plants.rows().drop("blooms"));
    try (PackageReader opened = PackageReader.open(folder.resolve("plants.mlb"))) {
      byte[] raw = Files.readAllBytes(opened.path("samples/inputs.mlbf"));
      Frame frame = FrameReader.read(ByteBuffer.wrap(raw));
      assertEquals(FrameType.RUN, frame.type());
      assertEquals(opened.samples().orElseThrow().inputs(), frame.tensors());
      assertEquals(ByteBuffer.wrap(raw), FrameWriter.write(frame));
    }
  }

  @Test
  void anOlderPackageIsReplaced() throws IOException {
    Path path = folder.resolve("plants.mlb");
    Files.writeString(path, "something else");
    Packages.save(Plants.fitted(), path, Plants.rows().drop("blooms"));
    try (PackageReader opened = PackageReader.open(path)) {
      assertTrue(opened.samples().isPresent());
    }
  }

  @Test
  void aModelThatSparkCannotSaveIsRefusedAndLeavesNoFile() throws IOException {
    assertThrows(Exception.class, () -> Packages.save(new Unsavable(), folder.resolve("x.mlb"), Plants.rows().drop("blooms")));
    try (var left = Files.list(folder)) {
      assertEquals(0, left.count());
    }
  }

  /** A transformer without a form on disk. */
  public static final class Unsavable extends org.apache.spark.ml.Transformer {
    private static final long serialVersionUID = 1;

    @Override
    public String uid() {
      return "unsavable";
    }

    @Override
    public Unsavable copy(ParamMap extra) {
      return this;
    }

    @Override
    public StructType transformSchema(StructType schema) {
      return schema.add("twice", "double");
    }

    @Override
    public Dataset<Row> transform(Dataset<?> rows) {
      return rows.toDF().withColumn("twice", rows.col("height").multiply(2));
    }
  }
}
