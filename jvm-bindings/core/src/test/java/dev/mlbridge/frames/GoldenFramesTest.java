package dev.mlbridge.frames;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.gson.JsonObject;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.Tensor;
import dev.mlbridge.Vectors;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class GoldenFramesTest {
  @TestFactory
  Stream<DynamicTest> everyGoldenFrameIsReadAsItSays() throws IOException {
    return Vectors.entries("frames").stream().map(e -> DynamicTest.dynamicTest(name(e), () -> reads(e)));
  }

  private static void reads(JsonObject entry) throws IOException {
    Frame frame = FrameReader.read(Vectors.bytes(entry));
    assertEquals(entry.get("type").getAsString(), frame.type().name());
    assertEquals(entry.get("request_id").getAsLong(), Integer.toUnsignedLong(frame.requestId()));
    Map<String, Tensor> want = Vectors.tensors(entry);
    assertEquals(new ArrayList<>(want.keySet()), new ArrayList<>(frame.tensors().keySet()));
    assertEquals(want, frame.tensors());
  }

  @TestFactory
  Stream<DynamicTest> everyRowMajorGoldenFrameIsWrittenByteForByte() throws IOException {
    return Vectors.entries("frames").stream()
        .filter(e -> !e.get("column_major").getAsBoolean())
        .map(e -> DynamicTest.dynamicTest(name(e), () -> writes(e)));
  }

  private static void writes(JsonObject entry) throws IOException {
    FrameType type = FrameType.valueOf(entry.get("type").getAsString());
    Frame frame = new Frame(type, (int) entry.get("request_id").getAsLong(), Vectors.tensors(entry));
    assertEquals(Vectors.bytes(entry), FrameWriter.write(frame));
  }

  @TestFactory
  Stream<DynamicTest> everyMalformedFrameIsRefused() throws IOException {
    return Vectors.entries("malformed").stream().map(e -> DynamicTest.dynamicTest(name(e), () -> refuses(e)));
  }

  private static void refuses(JsonObject entry) throws IOException {
    ByteBuffer bytes = Vectors.bytes(entry);
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> FrameReader.read(bytes));
    assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind());
  }

  @Test
  void damagedFramesNeverEndOtherwiseThanTyped() throws IOException {
    Random random = new Random(7);
    List<ByteBuffer> all = new ArrayList<>();
    for (JsonObject entry : Vectors.entries("frames")) {
      all.add(Vectors.bytes(entry));
    }
    Map<Boolean, Integer> seen = new HashMap<>();
    for (int i = 0; i < 20_000; i++) {
      byte[] bytes = all.get(random.nextInt(all.size())).array().clone();
      for (int k = random.nextInt(3); k >= 0; k--) {
        bytes[random.nextInt(bytes.length)] = (byte) random.nextInt(256);
      }
      int length = random.nextInt(4) == 0 ? random.nextInt(bytes.length) : bytes.length;
      boolean read;
      try {
        FrameReader.read(ByteBuffer.wrap(bytes, 0, length).slice());
        read = true;
      } catch (MlbridgeException e) {
        assertEquals(MlbridgeException.Kind.ARTIFACT, e.kind());
        read = false;
      }
      seen.merge(read, 1, Integer::sum);
    }
    assertEquals(2, seen.size(), "some damage is read, some refused");
  }

  @Test
  void aLoneSurrogateIsRefusedBeforeAnythingIsSent() {
    Frame frame = new Frame.Fields().put("x", "half \uD83D").frame(FrameType.RUN, 1);
    assertThrows(MlbridgeException.class, () -> FrameWriter.parts(frame));
  }

  private static String name(JsonObject entry) {
    return entry.get("file").getAsString();
  }
}
