package dev.mlbridge;

import java.util.List;
import java.util.Optional;

/**
 * Every error mlbridge raises. {@link #code} is what went wrong, {@link #kind} who can fix it; the kinds are the
 * classes of the Python tree, under their names.
 */
public final class MlbridgeException extends RuntimeException {
  /** The classes of the error tree and the status code each carries. */
  public enum Kind {
    MLBRIDGE("MlbridgeError", StatusCode.UNKNOWN),
    INPUT("InputError", StatusCode.INVALID_ARGUMENT),
    SIGNATURE("SignatureError", StatusCode.INVALID_ARGUMENT),
    ARTIFACT("ArtifactError", StatusCode.DATA_LOSS),
    UNTRUSTED("UntrustedArtifactError", StatusCode.PERMISSION_DENIED),
    CONVERSION("ConversionError", StatusCode.UNIMPLEMENTED),
    UNSUPPORTED("UnsupportedError", StatusCode.UNIMPLEMENTED),
    NOT_FOUND("NotFoundError", StatusCode.NOT_FOUND),
    ACCESS("AccessError", StatusCode.PERMISSION_DENIED),
    UNAVAILABLE("UnavailableError", StatusCode.UNAVAILABLE),
    MISSING_DEPENDENCY("MissingDependencyError", StatusCode.UNAVAILABLE),
    INFERENCE("InferenceError", StatusCode.INTERNAL),
    BRIDGE("BridgeError", StatusCode.UNAVAILABLE),
    WORKER_DIED("WorkerDiedError", StatusCode.UNAVAILABLE),
    TIMEOUT("BridgeTimeoutError", StatusCode.DEADLINE_EXCEEDED),
    CANCELLED("CancelledError", StatusCode.CANCELLED),
    OVERLOADED("OverloadedError", StatusCode.RESOURCE_EXHAUSTED),
    CLOSED("ClosedError", StatusCode.FAILED_PRECONDITION);

    private final String className;
    private final StatusCode code;

    Kind(String className, StatusCode code) {
      this.className = className;
      this.code = code;
    }

    /** Returns the name of the class in Python, which travels on the wire. */
    public String className() {
      return className;
    }

    /** Returns the status code that errors of this kind carry. */
    public StatusCode code() {
      return code;
    }

    /** Returns the kind of that class name. */
    public static Optional<Kind> of(String className) {
      for (Kind kind : values()) {
        if (kind.className.equals(className)) {
          return Optional.of(kind);
        }
      }
      return Optional.empty();
    }
  }

  private final Kind kind;
  private final StatusCode code;
  private final String hint;
  private final List<String> problems;

  private MlbridgeException(
      Kind kind, StatusCode code, String message, String hint, List<String> problems, Throwable cause) {
    super(message, cause);
    this.kind = kind;
    this.code = code;
    this.hint = hint;
    this.problems = List.copyOf(problems);
  }

  /** Makes an error of that kind. */
  public static MlbridgeException of(Kind kind, String message) {
    return new MlbridgeException(kind, kind.code, message, "", List.of(message), null);
  }

  /** Makes an error that lists every problem found. */
  public static MlbridgeException of(Kind kind, List<String> problems) {
    return new MlbridgeException(kind, kind.code, String.join("; ", problems), "", problems, null);
  }

  /** Returns a copy that says what to do about it. */
  public MlbridgeException withHint(String text) {
    return rebuilt(code, text, getCause());
  }

  /** Returns a copy with another status code than its kind's own. */
  public MlbridgeException withCode(StatusCode other) {
    return rebuilt(other, hint, getCause());
  }

  /** Returns a copy with a cause. */
  public MlbridgeException withCause(Throwable cause) {
    return rebuilt(code, hint, cause);
  }

  private MlbridgeException rebuilt(StatusCode newCode, String newHint, Throwable cause) {
    MlbridgeException copy =
        new MlbridgeException(kind, newCode, getMessage(), newHint, problems, cause);
    copy.setStackTrace(getStackTrace());
    return copy;
  }

  /** Returns the status code. */
  public StatusCode code() {
    return code;
  }

  /** Returns the class of the error tree. */
  public Kind kind() {
    return kind;
  }

  /** Returns what to do about it. */
  public Optional<String> hint() {
    return hint.isEmpty() ? Optional.empty() : Optional.of(hint);
  }

  /** Returns every problem found; one at least. */
  public List<String> problems() {
    return problems;
  }

  @Override
  public String toString() {
    return kind.className + ": " + getMessage() + (hint.isEmpty() ? "" : "\n  hint: " + hint);
  }
}
