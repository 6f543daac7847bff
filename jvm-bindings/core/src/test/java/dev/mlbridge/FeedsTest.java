package dev.mlbridge;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class FeedsTest {
  private static final Signature SIGNATURE =
      new Signature(
          List.of(
              TensorSpec.block("features", DType.FLOAT64, List.of(Column.of("age"), Column.of("calls"))),
              TensorSpec.block(
                      "categorical",
                      DType.INT32,
                      List.of(
                          Column.ofLevels("plan", List.of("basic", "pro")),
                          Column.ofLevels("grade", List.of(10L, 20L)),
                          Column.ofLevels("new", List.of(false, true))))
                  .allowingMissing()),
          List.of(TensorSpec.of("y", DType.FLOAT64, Dim.ROWS)));

  private static Tensor numbers(double... values) {
    return Tensor.of(values, values.length);
  }

  private static Tensor texts(String... values) {
    return Tensor.ofStrings(values, values.length);
  }

  private static List<String> problems(Map<String, Tensor> given) {
    return assertThrows(MlbridgeException.class, () -> Feeds.of(SIGNATURE, given)).problems();
  }

  @Test
  void columnsOfAnyNumericTypeAndLevelsBecomeBlocks() {
    Map<String, Tensor> got =
        Feeds.of(
            SIGNATURE,
            Map.of(
                "age", Tensor.of(new int[] {30, 40}, 2, 1),
                "calls", Tensor.of(new boolean[] {true, false}, 2),
                "plan", texts("pro", null),
                "grade", Tensor.of(new long[] {20, 10}, 2),
                "new", Tensor.of(new boolean[] {false, true}, 2)));
    assertArrayEquals(new double[] {30, 1, 40, 0}, got.get("features").toDoubles());
    assertArrayEquals(new int[] {1, 1, 0, -1, 0, 1}, got.get("categorical").toInts());
  }

  @Test
  void aBlockOfTextHoldsLevelsAndOneOfIntegersCodes() {
    Tensor features = Tensor.of(new double[] {1, 2}, 1, 2);
    Tensor levels = Tensor.ofStrings(new String[] {"basic", "20", "true"}, 1, 3);
    Tensor codes = Tensor.of(new int[] {0, 1, 1}, 1, 3);
    assertEquals(codes, Feeds.of(SIGNATURE, Map.of("features", features, "categorical", levels)).get("categorical"));
    assertEquals(codes, Feeds.of(SIGNATURE, Map.of("features", features, "categorical", codes)).get("categorical"));
  }

  @Test
  void everyProblemIsListed() {
    List<String> all =
        problems(
            Map.of(
                "age", numbers(1, Double.NaN),
                "plan", texts("basic", "gold"),
                "grade", texts("ten", "20"),
                "new", numbers(0, 2),
                "extra", numbers(1)));
    assertEquals(6, all.size(), all.toString());
    for (String word : new String[] {"'age' holds a missing", "'calls' is absent", "'gold'", "'ten'", "'new'", "'extra'"}) {
      assertTrue(all.stream().anyMatch(p -> p.contains(word)), word + " in " + all);
    }
  }

  @Test
  void codesOutsideTheLevelsAreRefused() {
    Tensor features = Tensor.of(new double[] {1, 2}, 1, 2);
    for (int code : new int[] {-2, 2, 7}) {
      List<String> all = problems(Map.of("features", features, "categorical", Tensor.of(new int[] {code, 0, 0}, 1, 3)));
      assertTrue(all.get(0).contains("'plan': code " + code), all.toString());
    }
  }

  @Test
  void rowsMustAgreeAcrossInputs() {
    List<String> all =
        problems(Map.of("features", Tensor.of(new double[4], 2, 2), "categorical", Tensor.of(new int[] {0, 0, 0}, 1, 3)));
    assertEquals(List.of("input 'categorical': rows is 1, and 2 in another input"), all);
  }
}
