package dev.mlbridge;

import java.util.Arrays;

/** Whether two answers are the same, by the design's relative error: |a-b| / max(|b|, 1e-3 max|b| of the column). */
final class Parity {
  private static final double FLOOR = 1e-3;

  private Parity() {}

  static boolean holds(Tensor want, Tensor got, double tolerance) {
    if (!Arrays.equals(want.shape(), got.shape())) {
      return false;
    }
    if (want.dtype() != DType.FLOAT32 && want.dtype() != DType.FLOAT64) {
      return want.equals(got);
    }
    int width = want.rank() > 1 && want.dim(0) > 0 ? want.size() / (int) want.dim(0) : 1;
    double[] scale = new double[Math.max(width, 1)];
    for (int i = 0; i < want.size(); i++) {
      double b = Math.abs(want.number(i));
      if (Double.isFinite(b)) {
        scale[i % width] = Math.max(scale[i % width], FLOOR * b);
      }
    }
    for (int i = 0; i < want.size(); i++) {
      double a = got.number(i);
      double b = want.number(i);
      boolean special = !Double.isFinite(a) || !Double.isFinite(b);
      if (special ? Double.compare(a, b) != 0 : Math.abs(a - b) > tolerance * Math.max(Math.abs(b), scale[i % width])) {
        return false;
      }
    }
    return true;
  }
}
