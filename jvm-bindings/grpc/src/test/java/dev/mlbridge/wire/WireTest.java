package dev.mlbridge.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.mlbridge.DType;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.StatusCode;
import dev.mlbridge.Tensor;
import dev.mlbridge.grpc.inference.InferTensorContents;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class WireTest {
  private static final List<Long> SIX = List.of(3L, 2L);

  /** Every bit pattern may come: the same bits must leave. */
  private static Tensor random(DType dtype) {
    Random random = new Random(7);
    if (dtype == DType.STRING) {
      return Tensor.ofStrings(new String[] {"", "a", "größer", "日本語", "\uD834\uDD1E", "x".repeat(300)}, 3, 2);
    }
    byte[] bytes = new byte[6 * dtype.size()];
    random.nextBytes(bytes);
    for (int i = 0; dtype == DType.BOOL && i < bytes.length; i++) {
      bytes[i] &= 1;
    }
    return Tensor.ofBytes(dtype, ByteBuffer.wrap(bytes), 3, 2);
  }

  private static MlbridgeException refused(StatusCode code, Runnable read) {
    MlbridgeException e = assertThrows(MlbridgeException.class, read::run);
    assertEquals(code, e.code(), e.getMessage());
    return e;
  }

  @ParameterizedTest
  @EnumSource(value = DType.class, mode = EnumSource.Mode.EXCLUDE, names = "BFLOAT16")
  void rawTensorsComeBackBitByBit(DType dtype) {
    Tensor t = random(dtype);
    assertEquals(t, Wire.raw(Wire.pack(t), dtype.oip(), SIX, "x"));
  }

  /** As they come from a message: a part of a larger buffer. */
  @ParameterizedTest
  @EnumSource(value = DType.class, mode = EnumSource.Mode.EXCLUDE, names = "BFLOAT16")
  void rawTensorsInsideAMessageComeBackBitByBit(DType dtype) {
    Tensor t = random(dtype);
    ByteString packed = Wire.pack(t);
    byte[] message = ByteString.copyFromUtf8("before").concat(packed).concat(ByteString.copyFromUtf8("after")).toByteArray();
    ByteString part = UnsafeByteOperations.unsafeWrap(message, 6, packed.size());
    assertEquals(t, Wire.raw(part, dtype.oip(), SIX, "x"));
  }

  @ParameterizedTest
  @EnumSource(value = DType.class, mode = EnumSource.Mode.EXCLUDE, names = {"BFLOAT16", "FLOAT16"})
  void typedTensorsComeBackBitByBit(DType dtype) {
    Tensor t = random(dtype);
    assertEquals(t, Contents.read(Contents.write(t), dtype.oip(), SIX, "x"));
  }

  @Test
  void bytesOfAnotherSizeAreRefused() {
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.copyFrom(new byte[47]), "FP64", SIX, "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.copyFrom(new byte[] {2}), "BOOL", List.of(1L), "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.EMPTY, "FP64", List.of(-1L), "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.EMPTY, "FP64", List.of(1L << 40, 1L << 40, 0L), "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.EMPTY, "FP63", List.of(0L), "x"));
    refused(StatusCode.UNIMPLEMENTED, () -> Wire.raw(ByteString.EMPTY, "BF16", List.of(0L), "x"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "01000000", "0100000061ff", "ffffffff", "01000000ff", "010000006101000000", "05000000616161"})
  void brokenTextIsRefused(String hex) {
    ByteString raw = ByteString.fromHex(hex);
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(raw, "BYTES", List.of(1L), "x"));
  }

  @Test
  void aShortMessageCannotClaimManyElements() {
    refused(StatusCode.INVALID_ARGUMENT, () -> Wire.raw(ByteString.copyFrom(new byte[8]), "BYTES", List.of((long) Integer.MAX_VALUE), "x"));
    refused(
        StatusCode.INVALID_ARGUMENT,
        () -> Contents.read(InferTensorContents.getDefaultInstance(), "FP64", List.of((long) Integer.MAX_VALUE), "x"));
  }

  @Test
  void typedNumbersMustBeInTheirRangeAndField() {
    InferTensorContents wide = InferTensorContents.newBuilder().addIntContents(128).build();
    assertTrue(refused(StatusCode.INVALID_ARGUMENT, () -> Contents.read(wide, "INT8", List.of(1L), "x")).getMessage().contains("128"));
    InferTensorContents both = InferTensorContents.newBuilder().addIntContents(1).addFp64Contents(1).build();
    refused(StatusCode.INVALID_ARGUMENT, () -> Contents.read(both, "INT32", List.of(1L), "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Contents.read(wide, "INT64", List.of(1L), "x"));
    refused(StatusCode.INVALID_ARGUMENT, () -> Contents.read(wide, "FP16", List.of(1L), "x"));
  }

  @Test
  void missingElementsAreIndicesWithinTheTensor() {
    assertEquals(2, Contents.missing(Map.of("missing", Contents.text("0,5")), 6, "x").length);
    assertEquals(0, Contents.missing(Map.of("missing", Contents.text("")), 6, "x").length);
    for (String wrong : new String[] {"6", "-1", "1,", "a", "1 ,2", "9999999999999999999"}) {
      refused(StatusCode.INVALID_ARGUMENT, () -> Contents.missing(Map.of("missing", Contents.text(wrong)), 6, "x"));
    }
    assertEquals(Optional.of("1,2"), Wire.missing(Tensor.ofStrings(new String[] {"a", null, null}, 3)));
    assertEquals(Optional.empty(), Wire.missing(Tensor.ofStrings(new String[] {"", "b"}, 2)));
  }

  @Test
  void namesInMessagesAreCutAndHarmless() {
    assertEquals("'" + "x".repeat(128) + "…'", Wire.clip("x".repeat(10_000)));
    assertEquals("'a\uFFFDb'", Wire.clip("a\nb"));
  }
}
