package dev.mlbridge.frames;

/** What a frame asks or answers; see {@code proto/FRAMES.md}. */
public enum FrameType {
  HELLO,
  LOAD,
  RUN,
  RESULT,
  ERROR,
  CANCEL,
  CLOSE,
  PING,
  PONG;

  /** Returns the number on the wire. */
  public int code() {
    return ordinal() + 1;
  }
}
