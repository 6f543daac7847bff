package dev.mlbridge.scaladsl

import dev.mlbridge.{Call, DType, MlbridgeException, Tensor}
import org.junit.jupiter.api.Assertions.{assertEquals, assertThrows, assertTrue}
import org.junit.jupiter.api.Test

import java.nio.file.Path
import scala.concurrent.ExecutionContext.Implicits.global
import scala.concurrent.Await
import scala.concurrent.duration.DurationInt

class FacadeTest {
  private val forest = Path.of("../core/src/test/resources/forest.mlb")

  private val doubles = Signature(
    inputs = Seq(TensorSpec("x", DType.FLOAT64, Seq(Dim.Rows, 2), Seq(Column("a"), Column("b")))),
    outputs = Seq(TensorSpec("label", DType.INT32, Seq(Dim.Rows), Seq(Column("label", Some(Seq(1, 2))))))
  )

  @Test def caseClassesBecomeTheOneJson(): Unit = {
    assertEquals(doubles.toJson, Signature.fromJson(doubles.toJson).toJson)
    assertTrue(doubles.toJson.contains("\"categories\":[1,2]"))
  }

  @Test def aBrokenRuleIsASignatureError(): Unit = {
    val e = assertThrows(
      classOf[MlbridgeException],
      () => Signature(Nil, Seq(TensorSpec("y", DType.FLOAT64, Seq(Dim.Size(2), Dim.Rows)))).toJava
    )
    assertEquals(MlbridgeException.Kind.SIGNATURE, e.kind)
  }

  @Test def aScalaSessionIsASession(): Unit = {
    val session = new ScalaSession {
      override def describes: Signature = doubles
      override def predict(feeds: Map[String, Tensor]): Map[String, Tensor] =
        Map("label" -> Tensor.of(Array.fill(feeds("x").dim(0).toInt)(1), feeds("x").dim(0)))
    }
    val got = session.run(java.util.Map.of("x", Tensor.of(new Array[Double](4), 2, 2)), Call.all())
    assertEquals(2, got.get("label").size)
  }

  @Test def aPackageAnswersNowAndInTheFuture(): Unit = {
    val model = Models.load(forest)
    try {
      val row = Seq(
        "age" -> Tensor.of(Array(2.0), 1),
        "income" -> Tensor.of(Array(-1.0), 1),
        "size" -> Tensor.ofStrings(Array("größer"), 1)
      )
      val now = model.predict(row: _*)
      assertEquals("yes", now("label").strings.head)
      assertEquals(now, Await.result(model.predictAsync(row: _*), 30.seconds))
      assertEquals(Seq("column 'size' is absent"), model.check(row.init: _*))
      assertEquals(Seq("age", "income"), model.signature.inputs.head.columns.map(_.name))
    } finally model.close()
  }
}
