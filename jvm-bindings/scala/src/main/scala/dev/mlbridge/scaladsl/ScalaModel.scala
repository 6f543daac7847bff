package dev.mlbridge.scaladsl

import dev.mlbridge.{Call, Model, Models => JModels, Tensor, Trust}

import java.nio.file.Path
import java.time.{Duration => JDuration}
import java.util.concurrent.{CompletionException, CompletionStage}
import scala.concurrent.{ExecutionContext, Future, Promise}
import scala.concurrent.duration.FiniteDuration
import scala.jdk.CollectionConverters._
import scala.jdk.OptionConverters._

/** A model in Scala: the Java one with Scala's collections, and answers as Futures. */
final class ScalaModel private[scaladsl] (val underlying: Model) extends AutoCloseable {

  /** The names, dtypes, shapes and rules. */
  lazy val signature: Signature = Signature.of(underlying.signature)

  /** Blocks or columns by name in; levels come back as values. */
  def predict(inputs: (String, Tensor)*): Map[String, Tensor] =
    underlying.predict(inputs.toMap.asJava).asScala.toMap

  /** As `predict`, for some outputs (all if there are none) and within a time. */
  def predict(inputs: Map[String, Tensor], outputs: Seq[String], within: Option[FiniteDuration]): Map[String, Tensor] =
    underlying.predict(inputs.asJava, ScalaModel.call(outputs, within)).asScala.toMap

  /** As `predict`, later; a model served elsewhere holds no thread meanwhile. */
  def predictAsync(inputs: (String, Tensor)*)(implicit context: ExecutionContext): Future[Map[String, Tensor]] =
    predictAsync(inputs.toMap, Nil, None)

  /** As `predict`, later, for some outputs (all if there are none) and within a time. */
  def predictAsync(inputs: Map[String, Tensor], outputs: Seq[String], within: Option[FiniteDuration])(implicit
      context: ExecutionContext
  ): Future[Map[String, Tensor]] =
    ScalaModel.future(underlying.predictAsync(inputs.asJava, ScalaModel.call(outputs, within))).map(_.asScala.toMap)

  /** Every problem of the inputs, without running. */
  def check(inputs: (String, Tensor)*): Seq[String] = underlying.check(inputs.toMap.asJava).asScala.toSeq

  override def close(): Unit = underlying.close()
}

private object ScalaModel {
  private def call(outputs: Seq[String], within: Option[FiniteDuration]): Call =
    Call.of(outputs.asJava, within.map(d => JDuration.ofNanos(d.toNanos)).toJava)

  /** Fails with the error itself, not with what Java wraps it in. */
  private def future[A](stage: CompletionStage[A]): Future[A] = {
    val out = Promise[A]()
    stage.whenComplete { (value, failure) =>
      failure match {
        case null                                               => out.success(value)
        case e: CompletionException if Option(e.getCause).isDefined => out.failure(e.getCause)
        case e                                                  => out.failure(e)
      }
    }
    out.future
  }
}

/** Opens models. */
object Models {

  /** Opens a package, or an ONNX file that holds its signature. */
  def load(source: Path, trust: Trust = Trust.DATA): ScalaModel = new ScalaModel(JModels.load(source, trust))

  /** Opens a path, `jvm:model.jar#com.acme.Churn`, or a model served at `grpc://host:port/model`, with options. */
  def load(source: String, options: (String, String)*): ScalaModel =
    new ScalaModel(JModels.load(source, Trust.DATA, options.toMap.asJava))
}
