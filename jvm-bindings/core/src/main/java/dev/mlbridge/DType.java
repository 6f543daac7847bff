package dev.mlbridge;

import java.util.Optional;

/**
 * The dtype table: how each side spells an element type. Unsigned types are held in the signed Java type of equal
 * width, float16 and bfloat16 in a short that holds their bits.
 */
public enum DType {
  BOOL("bool", "BOOL", 9, "boolean", 1, 1),
  INT8("int8", "INT8", 3, "byte", 2, 1),
  INT16("int16", "INT16", 5, "short", 3, 2),
  INT32("int32", "INT32", 6, "int", 4, 4),
  INT64("int64", "INT64", 7, "long", 5, 8),
  UINT8("uint8", "UINT8", 2, "byte", 6, 1),
  UINT16("uint16", "UINT16", 4, "short", 7, 2),
  UINT32("uint32", "UINT32", 12, "int", 8, 4),
  UINT64("uint64", "UINT64", 13, "long", 9, 8),
  FLOAT16("float16", "FP16", 10, "short", 10, 2),
  BFLOAT16("bfloat16", "BF16", 16, "short", 11, 2),
  FLOAT32("float32", "FP32", 1, "float", 12, 4),
  FLOAT64("float64", "FP64", 11, "double", 13, 8),
  STRING("string", "BYTES", 8, "String", 14, 0);

  private final String text;
  private final String oip;
  private final int onnx;
  private final String java;
  private final int frame;
  private final int size;

  DType(String text, String oip, int onnx, String java, int frame, int size) {
    this.text = text;
    this.oip = oip;
    this.onnx = onnx;
    this.java = java;
    this.frame = frame;
    this.size = size;
  }

  /** Returns the name in signatures. */
  public String text() {
    return text;
  }

  /** Returns the Open Inference Protocol's name. */
  public String oip() {
    return oip;
  }

  /** Returns ONNX's TensorProto.DataType. */
  public int onnx() {
    return onnx;
  }

  /** Returns the Java type that holds an element. */
  public String java() {
    return java;
  }

  /** Returns the code of the frame codec. */
  public int frame() {
    return frame;
  }

  /** Returns the bytes an element takes, 0 for strings. */
  public int size() {
    return size;
  }

  /** Returns the dtype of that name. */
  public static Optional<DType> of(String text) {
    for (DType d : values()) {
      if (d.text.equals(text)) {
        return Optional.of(d);
      }
    }
    return Optional.empty();
  }

  /** Returns the dtype of that frame code. */
  public static Optional<DType> ofFrame(int code) {
    return code >= 1 && code <= values().length ? Optional.of(values()[code - 1]) : Optional.empty();
  }

  @Override
  public String toString() {
    return text;
  }
}
