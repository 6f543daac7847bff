package dev.mlbridge.scaladsl

import dev.mlbridge.{Call, Session, Signature => JSignature, Tensor}

import java.util.{Map => JMap}
import scala.jdk.CollectionConverters._

/** A model in Scala: what a class or an object in a jar implements to be reached from Python, R and Java. */
trait ScalaSession extends Session {

  /** The names, dtypes, shapes and rules of the inputs and outputs. */
  def describes: Signature

  /** Runs once: tensors that satisfy the signature in, the outputs by name out. */
  def predict(feeds: Map[String, Tensor]): Map[String, Tensor]

  /** As `predict`, for a model that looks at the outputs asked for or at the time left. */
  def predict(feeds: Map[String, Tensor], call: Call): Map[String, Tensor] = predict(feeds)

  private lazy val compiled: JSignature = describes.toJava

  final override def signature: JSignature = compiled

  final override def run(feeds: JMap[String, Tensor], call: Call): JMap[String, Tensor] =
    predict(feeds.asScala.toMap, call).asJava
}
