package dev.mlbridge.scaladsl

import dev.mlbridge.{Model, Models => JModels, Tensor, Trust}

import java.nio.file.Path
import scala.concurrent.{blocking, ExecutionContext, Future}
import scala.jdk.CollectionConverters._

/** A model in Scala: the Java one with Scala's collections, and answers as Futures. */
final class ScalaModel private[scaladsl] (val underlying: Model) extends AutoCloseable {

  /** The names, dtypes, shapes and rules. */
  lazy val signature: Signature = Signature.of(underlying.signature)

  /** Blocks or columns by name in; levels come back as values. */
  def predict(inputs: (String, Tensor)*): Map[String, Tensor] =
    underlying.predict(inputs.toMap.asJava).asScala.toMap

  /** As `predict`, on the caller's execution context. */
  def predictAsync(inputs: (String, Tensor)*)(implicit context: ExecutionContext): Future[Map[String, Tensor]] =
    Future(blocking(predict(inputs: _*)))

  /** Every problem of the inputs, without running. */
  def check(inputs: (String, Tensor)*): Seq[String] = underlying.check(inputs.toMap.asJava).asScala.toSeq

  override def close(): Unit = underlying.close()
}

/** Opens models. */
object Models {

  /** Opens a package, or an ONNX file that holds its signature. */
  def load(source: Path, trust: Trust = Trust.DATA): ScalaModel = new ScalaModel(JModels.load(source, trust))
}
