package dev.mlbridge.server;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.mlbridge.Call;
import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.Model;
import dev.mlbridge.Models;
import dev.mlbridge.StatusCode;
import dev.mlbridge.Tensor;
import dev.mlbridge.Trust;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A real server and a real client on this machine; the model is one whose speed and failures the test decides. */
class MlbridgeServerTest {
  private static final Map<String, Tensor> ROW = Map.of("x", Tensor.of(new double[] {1, 2, 3}, 1, 3));

  private final Switchable session = new Switchable(1);
  private final List<AutoCloseable> opened = new ArrayList<>();
  private MlbridgeServer server;
  private Model model;

  @BeforeEach
  void serve() {
    server = MlbridgeServer.builder().model("double", session).address("127.0.0.1:0").maxQueue(2).start();
    model = load("double");
  }

  @AfterEach
  void end() throws Exception {
    session.release();
    for (AutoCloseable one : opened) {
      one.close();
    }
    model.close();
    server.stop(Duration.ZERO);
  }

  private Model load(String name, String... options) {
    Map<String, String> all = options.length == 0 ? Map.of() : Map.of(options[0], options[1]);
    Model out = Models.load("grpc://" + server.address() + "/" + name, Trust.DATA, all);
    opened.add(out);
    return out;
  }

  private static MlbridgeException fails(Kind kind, Runnable work) {
    MlbridgeException e = assertThrows(MlbridgeException.class, work::run);
    assertEquals(kind, e.kind(), e.toString());
    return e;
  }

  private static MlbridgeException failure(CompletableFuture<?> future) {
    CompletionException e = assertThrows(CompletionException.class, future::join);
    return (MlbridgeException) e.getCause();
  }

  @Test
  void theClientKnowsTheSignatureAndAnswersNowAndLater() {
    assertEquals(session.signature(), model.signature());
    double[] twice = {2, 4, 6};
    assertArrayEquals(twice, model.predict(ROW).get("y").toDoubles());
    assertArrayEquals(twice, model.predictAsync(ROW).join().get("y").toDoubles());
  }

  @Test
  void zeroRowsAreAnsweredWithZeroRows() {
    assertArrayEquals(new long[] {0, 3}, model.predict(Map.of("x", Tensor.of(new double[0], 0, 3))).get("y").shape());
  }

  @Test
  void whatDoesNotFitIsRefusedBeforeItIsSent() {
    fails(Kind.INPUT, () -> model.predict(Map.of("z", Tensor.of(new double[3], 1, 3))));
    assertEquals(Kind.INPUT, failure(model.predictAsync(Map.of())).kind());
    fails(Kind.INPUT, () -> model.predict(ROW, Call.of(List.of("nothing"), Optional.empty())));
  }

  @Test
  void unknownModelsAndVersionsAreNotFound() {
    for (String name : List.of("nothing", "double@2", "double@999999999999999999")) {
      assertEquals(StatusCode.NOT_FOUND, fails(Kind.NOT_FOUND, () -> load(name)).code());
    }
    assertEquals(model.signature(), load("double@1").signature());
  }

  @Test
  void aFailureInsideTellsNothingButItsCorrelation() {
    Map<String, Tensor> poison = Map.of("x", Tensor.of(new double[] {Switchable.POISON, 0, 0}, 1, 3));
    MlbridgeException e = fails(Kind.INFERENCE, () -> model.predict(poison));
    assertEquals(StatusCode.INTERNAL, e.code());
    assertTrue(e.getMessage().contains("correlation id"), e.getMessage());
    assertFalse(e.getMessage().contains("secret") || e.getMessage().contains("poison"), e.getMessage());
    assertArrayEquals(new double[] {2, 4, 6}, model.predict(ROW).get("y").toDoubles());
  }

  @Test
  void aFullQueueRefusesAndTheAcceptedAreAnswered() throws InterruptedException {
    session.hold();
    List<CompletableFuture<?>> accepted = new ArrayList<>();
    accepted.add(model.predictAsync(ROW));
    session.entered.acquire();
    accepted.add(model.predictAsync(ROW));
    accepted.add(model.predictAsync(ROW));
    MlbridgeException full = untilOverloaded(accepted);
    assertEquals(StatusCode.RESOURCE_EXHAUSTED, full.code());
    session.release();
    accepted.forEach(CompletableFuture::join);
  }

  /** The last two may be on their way still: what comes before them has a deadline of its own, or one of them is refused. */
  private MlbridgeException untilOverloaded(List<CompletableFuture<?>> accepted) {
    for (int i = 0; i < 1000; i++) {
      for (CompletableFuture<?> late : accepted) {
        if (late.isCompletedExceptionally()) {
          accepted.remove(late);
          return failure(late);
        }
      }
      try {
        model.predict(ROW, Call.of(List.of(), Optional.of(Duration.ofMillis(50))));
      } catch (MlbridgeException e) {
        if (e.kind() == Kind.OVERLOADED) {
          return e;
        }
        assertEquals(Kind.TIMEOUT, e.kind(), e.toString());
      }
    }
    throw new AssertionError("never refused");
  }

  @Test
  void aDeadlineEndsTheCallAndInterruptsTheModel() throws InterruptedException {
    model.predict(ROW); // so that the deadline is not spent on the first call's preparations
    session.entered.acquire();
    session.hold();
    MlbridgeException e = fails(Kind.TIMEOUT, () -> model.predict(ROW, Call.of(List.of(), Optional.of(Duration.ofSeconds(1)))));
    assertEquals(StatusCode.DEADLINE_EXCEEDED, e.code());
    assertTrue(session.entered.tryAcquire());
    session.release();
    model.predict(ROW);
    assertTrue(session.interrupted);
  }

  @Test
  void aDeadlineAlreadyPassedIsNotSent() {
    fails(Kind.TIMEOUT, () -> model.predict(ROW, Call.of(List.of(), Optional.of(Duration.ZERO))));
    assertEquals(0, session.entered.availablePermits());
  }

  @Test
  void cancellingTheFutureFreesTheModel() throws InterruptedException {
    session.hold();
    CompletableFuture<?> running = model.predictAsync(ROW);
    session.entered.acquire();
    running.cancel(true);
    assertTrue(session.entered.availablePermits() == 0);
    CompletableFuture<?> next = model.predictAsync(ROW);
    session.entered.acquire(); // it got the only turn
    assertTrue(session.interrupted);
    session.release();
    next.join();
  }

  @Test
  void cancellingTheCallEndsAWaitingThread() throws Exception {
    session.hold();
    Call call = Call.all();
    CompletableFuture<MlbridgeException> ended =
        CompletableFuture.supplyAsync(() -> assertThrows(MlbridgeException.class, () -> model.predict(ROW, call)));
    session.entered.acquire();
    call.cancel();
    assertEquals(Kind.CANCELLED, ended.get(30, TimeUnit.SECONDS).kind());
  }

  @Test
  void stoppingAnswersWhatWasAccepted() throws InterruptedException {
    session.hold();
    CompletableFuture<Map<String, Tensor>> accepted = model.predictAsync(ROW);
    session.entered.acquire();
    CompletableFuture<Boolean> stopped = CompletableFuture.supplyAsync(() -> server.stop(Duration.ofSeconds(30)));
    Kind kind = Kind.OVERLOADED;
    while (kind != Kind.UNAVAILABLE) { // until the stop has begun, the queue takes or refuses it
      Call brief = Call.of(List.of(), Optional.of(Duration.ofMillis(100)));
      kind = assertThrows(MlbridgeException.class, () -> model.predict(ROW, brief)).kind();
    }
    session.release();
    assertArrayEquals(new double[] {2, 4, 6}, accepted.join().get("y").toDoubles());
    assertTrue(stopped.join());
    fails(Kind.BRIDGE, () -> model.predict(ROW));
  }

  @Test
  void aReplacedVersionAnswersWhatItHasAccepted() throws InterruptedException {
    session.hold();
    CompletableFuture<Map<String, Tensor>> accepted = model.predictAsync(ROW);
    session.entered.acquire();
    Switchable other = new Switchable(1);
    server.load("double", "2", Model.of(other));
    assertArrayEquals(new double[] {2, 4, 6}, model.predict(ROW).get("y").toDoubles());
    assertEquals(1, other.entered.availablePermits());
    server.unload("double");
    session.release();
    assertArrayEquals(new double[] {2, 4, 6}, accepted.join().get("y").toDoubles());
    fails(Kind.NOT_FOUND, () -> model.predict(ROW));
  }

  @Test
  void aBatchLargerThanAMessageIsSentInParts() {
    double[] many = new java.util.Random(1).doubles(3 * 100_000).toArray();
    Map<String, Tensor> rows = Map.of("x", Tensor.of(many, 100_000, 3));
    Model small = load("double", "max_message_mib", "1");
    double[] want = java.util.Arrays.stream(many).map(v -> v * 2).toArray();
    assertArrayEquals(want, small.predict(rows).get("y").toDoubles());
    assertEquals(3, session.entered.availablePermits());
    assertArrayEquals(want, small.predictAsync(rows).join().get("y").toDoubles());
  }

  @Test
  void aMessageLargerThanTheServerTakesIsResourceExhausted() {
    Map<String, Tensor> rows = Map.of("x", Tensor.of(new double[3 * 800_000], 800_000, 3)); // 18 MiB, the limit is 16
    Model large = load("double", "max_message_mib", "100");
    MlbridgeException e = assertThrows(MlbridgeException.class, () -> large.predict(rows));
    assertEquals(StatusCode.RESOURCE_EXHAUSTED, e.code(), e.toString());
  }

  @Test
  void aClosedModelIsClosedAndTheOtherOfItsConnectionIsNot() {
    Model other = load("double");
    other.close();
    other.close();
    fails(Kind.CLOSED, () -> other.predict(ROW));
    model.predict(ROW);
  }

  @Test
  void aTokenIsAskedFor() {
    MlbridgeServer.Builder builder = MlbridgeServer.builder().model("double", new Switchable(1)).address("127.0.0.1:0");
    try (MlbridgeServer guarded = builder.token("correct-horse").start()) {
      String address = "grpc://" + guarded.address() + "/double";
      for (Map<String, String> wrong : List.of(Map.<String, String>of(), Map.of("token", "wrong-horse"))) {
        MlbridgeException e = fails(Kind.ACCESS, () -> Models.load(address, Trust.DATA, wrong));
        assertEquals(StatusCode.UNAUTHENTICATED, e.code());
      }
      try (Model right = Models.load(address, Trust.DATA, Map.of("token", "correct-horse"))) {
        right.predict(ROW);
      }
    }
  }

  @Test
  void widerAddressesNeedProtectionOrTheWord() {
    MlbridgeServer.Builder wide = MlbridgeServer.builder().model("double", session).address("0.0.0.0:0");
    MlbridgeException e = fails(Kind.INPUT, () -> wide.token("correct-horse").start());
    assertTrue(e.getMessage().contains("TLS"), e.getMessage());
    MlbridgeServer.builder().model("double", session).address("0.0.0.0:0").insecure().start().close();
  }

  @Test
  void anAddressInUseIsUnavailable() {
    fails(Kind.UNAVAILABLE, () -> MlbridgeServer.builder().model("double", session).address(server.address()).start());
  }

  @Test
  void namesAndVersionsAreChecked() {
    Model plain = Model.of(session);
    for (String[] wrong : new String[][] {{"a/b", "1"}, {"", "1"}, {"a", "one"}, {"a", ""}}) {
      fails(Kind.INPUT, () -> MlbridgeServer.builder().model(wrong[0], wrong[1], plain));
    }
    fails(Kind.INPUT, () -> MlbridgeServer.builder().model("a", plain).model("a", "1", plain));
  }
}
