package dev.mlbridge.scaladsl

import dev.mlbridge.{Column => JColumn, DType, Dim => JDim, Signature => JSignature, TensorSpec => JTensorSpec}

import java.util.Optional
import scala.jdk.CollectionConverters._
import scala.jdk.OptionConverters._
import scala.language.implicitConversions

/** One axis of a shape. */
sealed trait Dim {
  private[scaladsl] def toJava: JDim = this match {
    case Dim.Size(value)  => JDim.of(value)
    case Dim.Symbol(name) => new JDim.Symbol(name)
    case Dim.Any          => JDim.ANY
  }
}

object Dim {
  final case class Size(value: Long) extends Dim
  final case class Symbol(name: String) extends Dim
  case object Any extends Dim

  /** The batch axis, first; its presence is a promise that rows are independent. */
  val Rows: Dim = Symbol("rows")

  implicit def fromLong(value: Long): Dim = Size(value)
  implicit def fromInt(value: Int): Dim = Size(value.toLong)

  private[scaladsl] def of(dim: JDim): Dim = dim match {
    case s: JDim.Size   => Size(s.value)
    case s: JDim.Symbol => Symbol(s.name)
    case _              => Any
  }
}

/** One named column of a tensor's last axis; its levels are all String, all Long or all Boolean. */
final case class Column(
    name: String,
    categories: Option[Seq[Any]] = None,
    ordered: Boolean = false,
    keepUnknown: Boolean = false,
    unit: Option[String] = None
) {
  private[scaladsl] def toJava: JColumn = {
    val levels: Optional[java.util.List[Object]] =
      categories.map(_.map(Column.level).asJava).toJava
    new JColumn(name, levels, ordered, keepUnknown, unit.toJava)
  }
}

object Column {
  private def level(value: Any): Object = value match {
    case i: Int => Long.box(i.toLong)
    case other  => other.asInstanceOf[Object]
  }

  private[scaladsl] def of(c: JColumn): Column =
    Column(c.name, c.categories.toScala.map(_.asScala.toSeq), c.ordered, c.keepUnknown, c.unit.toScala)
}

/** One named tensor of a signature. */
final case class TensorSpec(
    name: String,
    dtype: DType,
    shape: Seq[Dim],
    columns: Seq[Column] = Nil,
    allowMissing: Boolean = false,
    rounds: Boolean = false
) {
  private[scaladsl] def toJava: JTensorSpec =
    new JTensorSpec(name, dtype, shape.map(_.toJava).asJava, columns.map(_.toJava).asJava, allowMissing, rounds)
}

object TensorSpec {
  private[scaladsl] def of(s: JTensorSpec): TensorSpec =
    TensorSpec(
      s.name,
      s.dtype,
      s.shape.asScala.map(Dim.of).toSeq,
      s.columns.asScala.map(Column.of).toSeq,
      s.allowMissing,
      s.rounds
    )
}

/** The names, dtypes, shapes and rules of a model's inputs and outputs. */
final case class Signature(inputs: Seq[TensorSpec], outputs: Seq[TensorSpec]) {

  /** The Java form; its rules are checked here, a broken one is a SignatureError. */
  def toJava: JSignature = new JSignature(inputs.map(_.toJava).asJava, outputs.map(_.toJava).asJava)

  /** The one serialisation. */
  def toJson: String = toJava.toJson
}

object Signature {

  /** From the Java form. */
  def of(s: JSignature): Signature =
    Signature(s.inputs.asScala.map(TensorSpec.of).toSeq, s.outputs.asScala.map(TensorSpec.of).toSeq)

  /** From the one serialisation. */
  def fromJson(text: String): Signature = of(JSignature.fromJson(text))
}
