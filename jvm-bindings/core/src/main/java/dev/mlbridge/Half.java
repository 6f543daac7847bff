package dev.mlbridge;

/** IEEE 754 half precision, which Java 17 has no type for: a short holds the bits. */
final class Half {
  private static final int BIAS = 15;
  private static final int FRACTION = 10; // bits
  private static final double OVERFLOWS = 65520; // half way between the largest half and the next power: rounds to infinity
  private static final double SMALLEST_NORMAL = 0x1p-14;

  private Half() {}

  static float toFloat(short bits) {
    int exponent = bits >> FRACTION & 0x1f;
    int fraction = bits & 0x3ff;
    float sign = bits < 0 ? -1f : 1f;
    if (exponent == 0x1f) {
      return fraction == 0 ? sign * Float.POSITIVE_INFINITY : Float.intBitsToFloat((bits < 0 ? 0xff800000 : 0x7f800000) | fraction << 13);
    }
    if (exponent == 0) {
      return sign * Math.scalb((float) fraction, -24);
    }
    return sign * Math.scalb((float) (fraction | 0x400), exponent - BIAS - FRACTION);
  }

  /** Rounds to the nearest half, ties to even. */
  static short of(double value) {
    int sign = Double.doubleToRawLongBits(value) < 0 ? 0x8000 : 0;
    double size = Math.abs(value);
    if (Double.isNaN(value)) {
      return (short) (sign | 0x7e00);
    }
    if (size >= OVERFLOWS) {
      return (short) (sign | 0x7c00);
    }
    if (size < SMALLEST_NORMAL) {
      return (short) (sign | (int) Math.rint(size * 0x1p24));
    }
    int exponent = Math.getExponent(size);
    int fraction = (int) Math.rint(Math.scalb(size, FRACTION - exponent)); // 1024..2048; 2048 carries into the exponent
    return (short) (sign | ((exponent + BIAS) << FRACTION) + fraction - 0x400);
  }
}
