package dev.mlbridge;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.Optional;

/** Numbers from one element type to another, as long as every value survives; rounding only where a tensor says so. */
final class Numbers {
  private static final double TWO_63 = 0x1p63;
  private static final double TWO_64 = 0x1p64;

  private Numbers() {}

  /**
   * Returns the same values in the spec's element type; nothing, and a problem, where one would change.
   *
   * @param where how messages name the tensor: {@code column 'age'}
   */
  static Optional<Tensor> to(TensorSpec spec, Tensor t, String where, List<String> problems) {
    DType from = t.dtype();
    DType target = spec.dtype();
    if (from == target) {
      return Optional.of(t);
    }
    if (from == DType.STRING || from == DType.BFLOAT16 || target == DType.BFLOAT16 || target == DType.STRING) {
      problems.add(where + " is " + from + ", expected " + target);
      return Optional.empty();
    }
    ByteBuffer out = ByteBuffer.allocate(Math.multiplyExact(t.size(), target.size())).order(ByteOrder.LITTLE_ENDIAN);
    int bad = isFloat(target) ? floats(t, out, spec) : isFloat(from) ? wholes(t, out, target) : integers(t, out, target);
    if (bad >= 0) {
      String why = isFloat(target) && spec.rounds() ? " is too large for " : " has no exact ";
      problems.add(where + ": " + text(t, bad) + " (element " + bad + ")" + why + target);
      return Optional.empty();
    }
    return Optional.of(Tensor.ofBytes(target, out.rewind(), t.shape()));
  }

  static boolean isFloat(DType dtype) {
    return dtype == DType.FLOAT64 || dtype == DType.FLOAT32 || dtype == DType.FLOAT16;
  }

  /** Returns the bits of an integer or truth value; unsigned 64-bit ones above 2**63 are negative here. */
  static long integer(Tensor t, int index) {
    return t.dtype().size() == 8 ? t.bytes().getLong(8 * index) : (long) t.number(index);
  }

  private static String text(Tensor t, int index) {
    if (isFloat(t.dtype())) {
      return Double.toString(t.number(index));
    }
    long value = integer(t, index);
    return t.dtype() == DType.UINT64 ? Long.toUnsignedString(value) : Long.toString(value);
  }

  /** Fills a floating-point buffer; returns the first element that does not fit, or -1. */
  private static int floats(Tensor t, ByteBuffer out, TensorSpec spec) {
    DType target = spec.dtype();
    boolean rounds = spec.rounds() && target != DType.FLOAT64;
    boolean whole = !isFloat(t.dtype());
    long exact = target == DType.FLOAT64 ? 1L << 53 : target == DType.FLOAT32 ? 1L << 24 : 1L << 11;
    for (int i = 0; i < t.size(); i++) {
      double value;
      if (whole) {
        long bits = integer(t, i);
        boolean huge = t.dtype() == DType.UINT64 && bits < 0;
        if (!rounds && (huge || bits > exact || bits < -exact)) {
          return i;
        }
        value = huge ? (bits >>> 1) * 2.0 : bits;
      } else {
        value = t.number(i);
      }
      double got = put(out, target, value);
      boolean lost = rounds ? Double.isInfinite(got) && !Double.isInfinite(value) : got != value && !Double.isNaN(value);
      if (lost) {
        return i;
      }
    }
    return -1;
  }

  private static double put(ByteBuffer out, DType target, double value) {
    switch (target) {
      case FLOAT64 -> {
        out.putDouble(value);
        return value;
      }
      case FLOAT32 -> {
        out.putFloat((float) value);
        return (float) value;
      }
      default -> {
        short bits = Half.of(value);
        out.putShort(bits);
        return Half.toFloat(bits);
      }
    }
  }

  /** Fills an integer buffer from floating-point values; returns the first element that is none, or -1. */
  private static int wholes(Tensor t, ByteBuffer out, DType target) {
    for (int i = 0; i < t.size(); i++) {
      double value = t.number(i);
      if (value != Math.rint(value) || Math.abs(value) > TWO_64) { // NaN differs from itself, infinities are too large
        return i;
      }
      boolean huge = target == DType.UINT64 && value >= TWO_63 && value < TWO_64;
      if (!huge && (value >= TWO_63 || value < -TWO_63 || !fits((long) value, target))) {
        return i;
      }
      write(out, target, huge ? (long) (value - TWO_63) ^ Long.MIN_VALUE : (long) value);
    }
    return -1;
  }

  private static int integers(Tensor t, ByteBuffer out, DType target) {
    for (int i = 0; i < t.size(); i++) {
      long value = integer(t, i);
      boolean huge = t.dtype() == DType.UINT64 && value < 0; // beyond every signed type; uint64 itself needs no conversion
      if (huge || !fits(value, target)) {
        return i;
      }
      write(out, target, value);
    }
    return -1;
  }

  private static boolean fits(long value, DType target) {
    return switch (target) {
      case BOOL -> value == 0 || value == 1;
      case INT8 -> value == (byte) value;
      case INT16 -> value == (short) value;
      case INT32 -> value == (int) value;
      case UINT8 -> value >= 0 && value < 1 << 8;
      case UINT16 -> value >= 0 && value < 1 << 16;
      case UINT32 -> value >= 0 && value < 1L << 32;
      case UINT64 -> value >= 0;
      default -> true;
    };
  }

  private static void write(ByteBuffer out, DType target, long value) {
    switch (target.size()) {
      case 1 -> out.put((byte) value);
      case 2 -> out.putShort((short) value);
      case 4 -> out.putInt((int) value);
      default -> out.putLong(value);
    }
  }
}
