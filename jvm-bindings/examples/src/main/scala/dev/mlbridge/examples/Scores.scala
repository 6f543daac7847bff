package dev.mlbridge.examples

import dev.mlbridge.{DType, Tensor}
import dev.mlbridge.scaladsl.{Column, Dim, ScalaSession, Signature, TensorSpec}

/** A linear score over text length and a number, as a Scala class. */
class Scores extends ScalaSession {
  override def describes: Signature = Signature(
    inputs = Seq(
      TensorSpec("features", DType.FLOAT64, Seq(Dim.Rows, 1), Seq(Column("weight"))),
      TensorSpec("text", DType.STRING, Seq(Dim.Rows, 1), Seq(Column("note")), allowMissing = true)
    ),
    outputs = Seq(TensorSpec("score", DType.FLOAT64, Seq(Dim.Rows), allowMissing = true))
  )

  override def predict(feeds: Map[String, Tensor]): Map[String, Tensor] = {
    val weights = feeds("features").toDoubles
    val notes = feeds("text").strings.map(Option(_))
    val scores = weights.zip(notes).map {
      case (w, Some(note)) => w * note.codePointCount(0, note.length)
      case (_, None)       => Double.NaN
    }
    Map("score" -> Tensor.of(scores, scores.length.toLong))
  }
}

/** The same as a Scala object. */
object Scores2 extends Scores
