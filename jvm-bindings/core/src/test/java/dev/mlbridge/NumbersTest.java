package dev.mlbridge;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class NumbersTest {
  private static final List<DType> NUMERIC =
      java.util.Arrays.stream(DType.values()).filter(d -> d != DType.STRING && d != DType.BFLOAT16).toList();

  private final List<String> problems = new ArrayList<>();

  private Optional<Tensor> to(DType target, Tensor t, boolean rounds) {
    return Numbers.to(new TensorSpec("x", target, List.of(Dim.ROWS), List.of(), true, rounds), t, "x", problems);
  }

  @ParameterizedTest
  @EnumSource(DType.class)
  void smallNumbersReachEveryTypeAndComeBack(DType from) {
    if (!NUMERIC.contains(from)) {
      return;
    }
    Tensor start = to(from, Tensor.of(new double[] {0, 1, 1}, 3), false).orElseThrow();
    for (DType target : NUMERIC) {
      Tensor there = to(target, start, false).orElseThrow();
      assertEquals(target, there.dtype());
      assertEquals(start, to(from, there, false).orElseThrow(), from + " to " + target);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "INT8, 128", "INT8, -129", "UINT8, 256", "UINT8, -1", "INT16, 32768", "UINT16, 65536", "INT32, 2147483648", "UINT32, -1",
    "UINT32, 4294967296", "INT64, 9223372036854775808", "UINT64, 18446744073709551616", "UINT64, -1", "BOOL, 2", "INT32, 0.5",
    "INT64, NaN", "INT64, Infinity", "FLOAT32, 0.1", "FLOAT32, 16777217", "FLOAT32, 1e300", "FLOAT16, 2049", "FLOAT16, 1e-9"
  })
  void aValueThatWouldChangeIsAProblemThatNamesIt(DType target, double value) {
    assertTrue(to(target, Tensor.of(new double[] {1, value}, 2), false).isEmpty());
    assertEquals(1, problems.size());
    assertTrue(problems.get(0).contains("element 1") && problems.get(0).contains(Double.toString(value)), problems.toString());
  }

  @Test
  void integersBeyondTheExactOnesAreRefusedByEveryFloat() {
    Tensor large = Tensor.of(new long[] {(1L << 53) + 1}, 1);
    assertTrue(to(DType.FLOAT64, large, false).isEmpty());
    assertTrue(to(DType.FLOAT32, Tensor.of(new long[] {(1L << 24) + 1}, 1), false).isEmpty());
    assertArrayEquals(new double[] {1L << 53}, to(DType.FLOAT64, Tensor.of(new long[] {1L << 53}, 1), false).orElseThrow().toDoubles());
  }

  @Test
  void unsigned64BitNumbersAreNotNegative() {
    ByteBuffer bytes = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, -1);
    Tensor most = Tensor.ofBytes(DType.UINT64, bytes, 1);
    assertTrue(to(DType.INT64, most, false).isEmpty());
    assertTrue(problems.get(0).contains("18446744073709551615"));
    assertEquals(0x1p64f, to(DType.FLOAT32, most, true).orElseThrow().floats().get(0));
  }

  @Test
  void roundingIsToTheNearestAndNeverToInfinity() {
    assertEquals(0.1f, to(DType.FLOAT32, Tensor.of(new double[] {0.1}, 1), true).orElseThrow().floats().get(0));
    assertTrue(to(DType.FLOAT32, Tensor.of(new double[] {1e300}, 1), true).isEmpty());
    assertTrue(to(DType.FLOAT32, Tensor.of(new double[] {Double.POSITIVE_INFINITY, Double.NaN}, 2), false).isPresent());
  }

  /** Every half: to a float and back; and the double half way to the next rounds to the even one, as IEEE 754 says. */
  @Test
  void everyHalfSurvivesAndTiesGoToEven() {
    for (int bits = 0; bits < 1 << 16; bits++) {
      float value = Half.toFloat((short) bits);
      if (Float.isNaN(value)) {
        assertTrue((bits & 0x7fff) > 0x7c00);
        continue;
      }
      assertEquals((short) bits, Half.of(value), "bits " + bits);
      int next = bits + 1;
      if ((bits & 0x7fff) < 0x7bff) {
        double middle = (value + (double) Half.toFloat((short) next)) / 2;
        assertEquals((short) (bits % 2 == 0 ? bits : next), Half.of(middle), "half way after " + bits);
      }
    }
    assertEquals((short) 0x7c00, Half.of(65520));
    assertEquals((short) 0x7bff, Half.of(65519.99));
    assertEquals(1.5f, Half.toFloat((short) 0x3e00));
    assertEquals(0x1p-24f, Half.toFloat((short) 1));
  }
}
