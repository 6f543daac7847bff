package dev.mlbridge;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SignatureTest {
  /** As Python writes it. */
  private static final String MIXED =
      "{\"version\":1,\"inputs\":[{\"name\":\"features\",\"dtype\":\"float64\",\"shape\":[\"rows\",2],\"columns\":["
          + "{\"name\":\"âge\"},{\"name\":\"seen\",\"unit\":\"timestamp\"}],\"missing\":\"allow\"},"
          + "{\"name\":\"categorical\",\"dtype\":\"int32\",\"shape\":[\"rows\",3],\"columns\":["
          + "{\"name\":\"size\",\"categories\":[\"S\",\"M \\\"x\\\"\\n\"],\"ordered\":true,\"unknown\":\"keep\"},"
          + "{\"name\":\"n\",\"categories\":[-1,9223372036854775807]},{\"name\":\"b\",\"categories\":[false,true]}]},"
          + "{\"name\":\"image\",\"dtype\":\"float32\",\"shape\":[null,3,\"h\"],\"rounding\":\"nearest\"}],"
          + "\"outputs\":[{\"name\":\"y\",\"dtype\":\"string\",\"shape\":[]}]}";

  @Test
  void jsonComesBackByteForByte() {
    assertEquals(MIXED, Signature.fromJson(MIXED).toJson());
  }

  @Test
  void levelsKeepTheirTypes() {
    Signature signature = Signature.fromJson(MIXED);
    List<Column> columns = signature.inputs().get(1).columns();
    assertEquals(Optional.of(List.of(-1L, Long.MAX_VALUE)), columns.get(1).categories());
    assertEquals(Optional.of(List.of(false, true)), columns.get(2).categories());
    assertFalse(signature.batched());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "[]",
        "{\"version\":1,\"inputs\":[]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[]}",
        "{\"version\":2,\"inputs\":[],\"outputs\":[]}",
        "{\"version\":1.0,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[]}]}",
        "{\"version\":true,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[]}]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float65\",\"shape\":[]}]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[2.5]}]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[],\"extra\":1}]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[3,\"rows\"]}]}",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"float64\",\"shape\":[]}]} x",
        "{\"version\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"int32\",\"shape\":[\"rows\"],"
            + "\"columns\":[{\"name\":\"y\",\"categories\":[\"a\",1]}]}]}",
      })
  void malformedOrNewerJsonIsRefused(String text) {
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> Signature.fromJson(text));
    assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind());
    assertEquals(StatusCode.DATA_LOSS, e.code());
  }

  @Test
  void allProblemsComeAtOnce() {
    TensorSpec x = TensorSpec.of("x", DType.FLOAT64, Dim.ROWS);
    MlbridgeException e =
        assertThrows(MlbridgeException.class, () -> new Signature(List.of(x, x), List.of()));
    assertEquals(2, e.problems().size());
  }

  @Test
  void theDtypeTableIsTheSharedOne() {
    // name, OIP, ONNX, bytes; the position is the frame code
    List<String> rows =
        List.of(
            "bool BOOL 9 1", "int8 INT8 3 1", "int16 INT16 5 2", "int32 INT32 6 4", "int64 INT64 7 8",
            "uint8 UINT8 2 1", "uint16 UINT16 4 2", "uint32 UINT32 12 4", "uint64 UINT64 13 8",
            "float16 FP16 10 2", "bfloat16 BF16 16 2", "float32 FP32 1 4", "float64 FP64 11 8", "string BYTES 8 0");
    for (int i = 0; i < rows.size(); i++) {
      DType d = DType.values()[i];
      assertEquals(rows.get(i), d.text() + " " + d.oip() + " " + d.onnx() + " " + d.size());
      assertEquals(i + 1, d.frame());
      assertEquals(Optional.of(d), DType.ofFrame(i + 1));
      assertEquals(Optional.of(d), DType.of(d.text()));
    }
    assertEquals(rows.size(), DType.values().length);
    assertTrue(DType.ofFrame(0).isEmpty());
  }
}
