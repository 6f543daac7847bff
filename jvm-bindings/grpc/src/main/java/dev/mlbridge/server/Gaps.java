package dev.mlbridge.server;

import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Missing elements, which the protocol lists beside a tensor, written into the tensor: NaN, or a text that is null. */
final class Gaps {
  private static final long EXACT = 1L << 53; // integers up to here are exact as doubles

  private Gaps() {}

  static Tensor of(Tensor t, int[] missing) {
    if (missing.length == 0) {
      return t;
    }
    return switch (t.dtype()) {
      case STRING -> strings(t, missing);
      case FLOAT64, FLOAT32, FLOAT16 -> floats(t, missing);
      default -> doubles(t, missing);
    };
  }

  private static Tensor strings(Tensor t, int[] missing) {
    String[] out = t.strings().clone();
    for (int i : missing) {
      out[i] = null;
    }
    return Tensor.ofStrings(out, t.shape());
  }

  private static Tensor floats(Tensor t, int[] missing) {
    ByteBuffer out = ByteBuffer.allocate(t.bytes().remaining()).order(ByteOrder.LITTLE_ENDIAN).put(t.bytes()).rewind();
    for (int i : missing) {
      switch (t.dtype()) {
        case FLOAT64 -> out.putDouble(8 * i, Double.NaN);
        case FLOAT32 -> out.putFloat(4 * i, Float.NaN);
        default -> out.putShort(2 * i, (short) 0x7e00);
      }
    }
    return Tensor.ofBytes(t.dtype(), out, t.shape());
  }

  /** Integers have no missing value of their own. */
  private static Tensor doubles(Tensor t, int[] missing) {
    double[] out = new double[t.size()];
    for (int i = 0; i < out.length; i++) {
      out[i] = number(t, i);
    }
    for (int i : missing) {
      out[i] = Double.NaN;
    }
    return Tensor.of(out, t.shape());
  }

  private static double number(Tensor t, int i) {
    long value = t.dtype().size() == 8 ? t.bytes().getLong(8 * i) : (long) t.number(i);
    boolean huge = t.dtype() == DType.UINT64 && value < 0;
    if (huge || value > EXACT || value < -EXACT) {
      String text = huge ? Long.toUnsignedString(value) : Long.toString(value);
      throw MlbridgeException.of(MlbridgeException.Kind.INPUT, text + " beside missing elements is not exact as FP64");
    }
    return value;
  }
}
