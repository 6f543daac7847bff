package dev.mlbridge.scaladsl

import dev.mlbridge.{DType, MlbridgeException, Tensor}
import dev.mlbridge.server.MlbridgeServer
import org.junit.jupiter.api.Assertions.{assertEquals, assertThrows}
import org.junit.jupiter.api.Test

import java.util.concurrent.CountDownLatch
import scala.concurrent.{Await, Future}
import scala.concurrent.ExecutionContext.Implicits.global
import scala.concurrent.duration.DurationInt

/** A Scala session served, and asked from Scala. */
class ServedTest {
  private val gate = new CountDownLatch(1)

  private val doubles = new ScalaSession {
    override def describes: Signature = Signature(
      inputs = Seq(TensorSpec("x", DType.FLOAT64, Seq(Dim.Rows, 1))),
      outputs = Seq(TensorSpec("y", DType.FLOAT64, Seq(Dim.Rows, 1)), TensorSpec("z", DType.FLOAT64, Seq(Dim.Rows, 1)))
    )
    override def predict(feeds: Map[String, Tensor]): Map[String, Tensor] = {
      val x = feeds("x")
      if (x.doubles.get(0) < 0) gate.await()
      Map("y" -> Tensor.of(x.toDoubles.map(_ * 2), x.shape: _*), "z" -> x)
    }
    override def maxConcurrency(): Int = 8
  }

  private def one(value: Double): Tensor = Tensor.of(Array(value), 1, 1)

  private def served(work: (ScalaModel, String) => Unit): Unit = {
    val server = MlbridgeServer.builder().model("doubles", doubles).address("127.0.0.1:0").start()
    try {
      val model = Models.load(s"grpc://${server.address}/doubles", "timeout_s" -> "30")
      try work(model, server.address)
      finally model.close()
    } finally {
      gate.countDown()
      server.close()
    }
  }

  @Test def aServedModelAnswersNowAndInTheFuture(): Unit = served { (model, _) =>
    assertEquals(doubles.describes, model.signature)
    assertEquals(Seq(4.0), model.predict("x" -> one(2))("y").toDoubles.toSeq)
    val many = Future.sequence((1 to 50).map(i => model.predictAsync("x" -> one(i)).map(_("y").toDoubles.head)))
    assertEquals((1 to 50).map(_ * 2.0), Await.result(many, 30.seconds))
    assertEquals(Set("z"), model.predict(Map("x" -> one(1)), Seq("z"), None).keySet)
  }

  @Test def aFutureFailsWithTheErrorItself(): Unit = served { (model, address) =>
    val late = model.predictAsync(Map("x" -> one(-1)), Nil, Some(100.millis))
    val e = assertThrows(classOf[MlbridgeException], () => { Await.result(late, 30.seconds); () })
    assertEquals(MlbridgeException.Kind.TIMEOUT, e.kind)
    val wrong = model.predictAsync("x" -> Tensor.ofStrings(Array("a"), 1, 1))
    assertEquals(MlbridgeException.Kind.INPUT, assertThrows(classOf[MlbridgeException], () => { Await.result(wrong, 30.seconds); () }).kind)
    val absent = assertThrows(classOf[MlbridgeException], () => { Models.load(s"grpc://$address/nothing"); () })
    assertEquals(MlbridgeException.Kind.NOT_FOUND, absent.kind)
  }
}
