package dev.mlbridge;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

class TensorTest {
  @Test
  void valuesComeBackBitByBit() {
    double quiet = Double.longBitsToDouble(0x7FF00000000007A2L); // R's NA_real_
    Tensor t = Tensor.of(new double[] {0.1, quiet, -0.0}, 3);
    assertEquals(0x7FF00000000007A2L, t.bytes().getLong(8));
    assertEquals(Double.doubleToRawLongBits(-0.0), Double.doubleToRawLongBits(t.toDoubles()[2]));
  }

  @Test
  void aShapeThatDoesNotFitIsRefused() {
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Tensor.of(new double[3], 2, 2));
    assertEquals(MlbridgeException.Kind.INPUT, e.kind());
  }

  @Test
  void aViewOfAnotherTypeIsRefused() {
    assertThrows(MlbridgeException.class, () -> Tensor.of(new double[3], 3).floats());
  }

  @Test
  void aCopyOutlivesItsBuffer() {
    ByteBuffer shared = ByteBuffer.allocate(8);
    Tensor view = Tensor.ofBytes(DType.INT32, shared, 2);
    Tensor kept = view.copy();
    shared.putInt(0, 7);
    assertNotEquals(view, kept);
    assertArrayEquals(new int[2], kept.toInts());
  }

  @Test
  void unsignedNumbersAreNotNegative() {
    Tensor t = Tensor.ofBytes(DType.UINT8, ByteBuffer.wrap(new byte[] {-1}), 1);
    assertEquals(255.0, t.number(0));
  }
}
