package dev.mlbridge.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.CodedOutputStream;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Models;
import dev.mlbridge.Trust;
import dev.mlbridge.grpc.inference.InferParameter;
import dev.mlbridge.grpc.inference.ModelMetadataResponse;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PlaceTest {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "", "host/model", "host:1", "host:1/", "host:99999/m", "user:pw@host:1/m", "host:1/m?token=x", "host:1/m@x", "host:1/a/b"
      })
  void anAddressThatIsNoneIsRefused(String text) {
    assertEquals(Kind.INPUT, assertThrows(MlbridgeException.class, () -> Models.load("grpc://" + text)).kind());
  }

  @Test
  void addresses() {
    assertEquals(new Place("h.example", 8001, "churn", "12"), Place.parse("h.example:8001/churn@12"));
    assertEquals(new Place("[::1]", 5, "m", ""), Place.parse("[::1]:5/m"));
    assertTrue(Place.parse("[::1]:5/m").local() && Place.parse("127.0.0.9:5/m").local() && Place.parse("localhost:5/m").local());
    assertTrue(!Place.parse("127.evil.example:5/m").local() && !Place.parse("198.51.100.1:5/m").local());
  }

  @Test
  void aTokenNeverCrossesTheNetworkInTheClear() {
    MlbridgeException e =
        assertThrows(MlbridgeException.class, () -> Models.load("grpc://198.51.100.1:1/m", Trust.DATA, Map.of("token", "secret-token")));
    assertTrue(e.getMessage().contains("in the clear") && !e.toString().contains("secret-token"));
  }

  @Test
  void anUnknownOptionIsRefusedByName() {
    MlbridgeException e =
        assertThrows(MlbridgeException.class, () -> Models.load("grpc://127.0.0.1:1/m", Trust.DATA, Map.of("tokn", "secret-token")));
    assertTrue(e.getMessage().contains("tokn"));
  }

  @Test
  void nobodyThereIsABridgeError() {
    assertEquals(Kind.BRIDGE, assertThrows(MlbridgeException.class, () -> Models.load("grpc://127.0.0.1:1/m")).kind());
  }

  /** MLServer writes a map of messages into the field that others use for a map of strings. */
  @Test
  void anotherDialectsParametersAreDropped() throws IOException {
    ModelMetadataResponse plain = ModelMetadataResponse.newBuilder().setName("m").setPlatform("p").build();
    byte[] entry = InferParameter.newBuilder().setInt64Param(-1).build().toByteArray();
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    CodedOutputStream out = CodedOutputStream.newInstance(bytes);
    plain.writeTo(out);
    out.writeByteArray(6, entry);
    out.flush();
    assertArrayEquals(plain.toByteArray(), Told.compatible(bytes.toByteArray()));
  }
}
