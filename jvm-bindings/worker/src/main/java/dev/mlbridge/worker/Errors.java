package dev.mlbridge.worker;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import dev.mlbridge.frames.Frame;
import dev.mlbridge.frames.FrameType;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CancellationException;

/** What went wrong here, as a typed error and as the frame that tells the parent. */
final class Errors {
  private static final int TRACE = 16_000; // characters; a stack overflow has a thousand like frames

  private Errors() {}

  /** Types what a model or its loading threw. */
  static MlbridgeException of(Throwable e, boolean loading) {
    if (e instanceof MlbridgeException own) {
      return own.kind() == Kind.UNTRUSTED ? MlbridgeException.of(Kind.ARTIFACT, own.getMessage()) : own;
    }
    if (e instanceof OutOfMemoryError) {
      return typed(Kind.INFERENCE, "the JVM ran out of memory: " + e.getMessage(), e)
          .withHint("raise the option 'heap_mb', or send fewer rows");
    }
    if (e instanceof UnsupportedClassVersionError) {
      return typed(Kind.ARTIFACT, "the class needs a newer Java than " + System.getProperty("java.version") + ": " + e.getMessage(), e)
          .withHint("compile it for this Java, or name a newer one by the option 'java'");
    }
    if (e instanceof CancellationException || e instanceof InterruptedException) {
      return typed(Kind.CANCELLED, "the call was cancelled", e);
    }
    String text = text(e);
    boolean broken = text.startsWith("Could not initialize class"); // it is there: its static part failed, at an earlier call
    if (e instanceof NoClassDefFoundError && !broken || e instanceof ClassNotFoundException) {
      return typed(Kind.MISSING_DEPENDENCY, "a class is missing: " + text, e)
          .withHint("add the jar that holds it to the option 'classpath'");
    }
    if (loading) {
      return typed(Kind.ARTIFACT, "the model does not load: " + e.getClass().getName() + ": " + text, e);
    }
    return typed(Kind.INFERENCE, text, e);
  }

  private static MlbridgeException typed(Kind kind, String text, Throwable cause) {
    return MlbridgeException.of(kind, text).withCause(cause);
  }

  /** Writes an error as a frame. */
  static Frame frame(MlbridgeException e, int requestId) {
    Throwable root = Optional.ofNullable(e.getCause()).orElse(e);
    Frame.Fields out =
        new Frame.Fields()
            .put("class", e.kind().className())
            .put("message", clean(e.getMessage()))
            .put("code", e.code().number())
            .put("problems", e.problems().stream().map(Errors::clean).toList())
            .put("condition", classes(root))
            .put("trace", clean(trace(root)));
    e.hint().ifPresent(hint -> out.put("hint", clean(hint)));
    return out.frame(FrameType.ERROR, requestId);
  }

  private static List<String> classes(Throwable e) {
    List<String> out = new ArrayList<>();
    for (Class<?> c = e.getClass(); c != Object.class; c = c.getSuperclass()) {
      out.add(c.getName());
    }
    return out;
  }

  private static String trace(Throwable e) {
    StringWriter out = new StringWriter();
    try {
      e.printStackTrace(new PrintWriter(out));
    } catch (Throwable inMessage) {
      out.write(List.of(e.getStackTrace()).toString());
    }
    return shortened(out.toString());
  }

  /** Returns what an exception says, or its class: what it says is the model's own code, and may fail itself. */
  private static String text(Throwable e) {
    try {
      return shortened(Optional.ofNullable(e.getMessage()).orElseGet(() -> e.getClass().getName()));
    } catch (Throwable inMessage) {
      return e.getClass().getName();
    }
  }

  private static String shortened(String text) {
    return text.length() > TRACE ? text.substring(0, TRACE) + "..." : text;
  }

  private static String clean(String text) { // a message may hold half a character; an error must always get through
    StringBuilder out = new StringBuilder(text);
    for (int i = 0; i < out.length(); i++) {
      char c = out.charAt(i);
      if (Character.isHighSurrogate(c) && i + 1 < out.length() && Character.isLowSurrogate(out.charAt(i + 1))) {
        i++;
      } else if (Character.isSurrogate(c)) {
        out.setCharAt(i, '\uFFFD');
      }
    }
    return out.toString();
  }
}
