package dev.mlbridge.examples;

import dev.mlbridge.Call;
import dev.mlbridge.DType;
import dev.mlbridge.Dim;
import dev.mlbridge.Session;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import dev.mlbridge.TensorSpec;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** A model that does what its input {@code what} says: the tests hold the host against it. */
public final class Misbehaving implements Session {
  @Override
  public Signature signature() {
    return new Signature(
        List.of(TensorSpec.of("what", DType.STRING, Dim.of(1))), List.of(TensorSpec.of("y", DType.FLOAT64, Dim.of(1))));
  }

  @Override
  public Map<String, Tensor> run(Map<String, Tensor> feeds, Call call) throws Exception {
    String asked = feeds.get("what").strings()[0];
    if (asked.startsWith("null")) {
      return asked.equals("null") ? null : java.util.Collections.singletonMap("y", null);
    }
    double answer =
        switch (asked) {
          case "fine" -> 1.0;
          case "exit 0" -> exit(0);
          case "exit 3" -> exit(3);
          case "halt" -> halt();
          case "throw" -> throw new IllegalStateException("the model broke: é\uD83D");
          case "error" -> throw new AssertionError("an error, not an exception");
          case "overflow" -> deeper(1);
          case "memory" -> eat();
          case "loop" -> loop();
          case "patient loop" -> patient(call);
          case "sleep" -> sleep();
          case "print" -> print();
          case "missing class" -> missing();
          case "deserialise" -> deserialise();
          case "broken class" -> Unmade.ONE;
          case "mute" -> throw new Mute();
          default -> 0.0;
        };
    return Map.of("y", Tensor.of(new double[] {answer}, 1));
  }

  private static double exit(int status) {
    System.exit(status);
    return 0;
  }

  private static double halt() {
    java.lang.Runtime.getRuntime().halt(9);
    return 0;
  }

  private static double deeper(double depth) {
    return deeper(depth + 1) + 1;
  }

  private static double eat() {
    List<long[]> all = new ArrayList<>();
    while (true) {
      all.add(new long[1 << 20]);
    }
  }

  private static double loop() {
    double x = 1;
    while (x > 0) { // neither asks the call nor can be interrupted
      x += Math.ulp(x) > 2 ? -x / 2 : 1;
    }
    return x;
  }

  private static double patient(Call call) {
    while (true) {
      call.check();
      Thread.onSpinWait();
    }
  }

  private static double sleep() throws InterruptedException {
    Thread.sleep(3_600_000);
    return 0;
  }

  private static double print() {
    System.out.println("MLB1 printed by the model");
    System.err.println("a complaint");
    System.out.write(new byte[1 << 16], 0, 1 << 16);
    System.out.println();
    return 2.0;
  }

  private static double missing() {
    throw new NoClassDefFoundError("com/acme/Absent");
  }

  private static double deserialise() throws Exception {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(new Note("x"));
    }
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      return ((Note) in.readObject()).text.length();
    }
  }

  /** Fails as soon as it is looked at. */
  private static final class Unmade {
    private static final double ONE = 1 / Integer.parseInt("0");
  }

  /** Fails again when asked what is wrong. */
  private static final class Mute extends RuntimeException {
    @Override
    public String getMessage() {
      throw new IllegalStateException("no words for it");
    }
  }

  private static final class Note implements Serializable {
    private final String text;

    Note(String text) {
      this.text = text;
    }
  }
}
