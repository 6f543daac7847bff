package dev.mlbridge;

/** One axis of a shape: a size, a symbol that must agree across tensors, or any size. */
public sealed interface Dim {
  /** The batch axis, first; its presence is a promise that rows are independent. */
  Symbol ROWS = new Symbol("rows");

  /** Any size. */
  Any ANY = new Any();

  /** A fixed size. */
  record Size(long value) implements Dim {
    @Override
    public String toString() {
      return Long.toString(value);
    }
  }

  /** A symbol. */
  record Symbol(String name) implements Dim {
    @Override
    public String toString() {
      return name;
    }
  }

  /** Any size. */
  record Any() implements Dim {
    @Override
    public String toString() {
      return "?";
    }
  }

  /** Makes a fixed size. */
  static Dim of(long size) {
    return new Size(size);
  }
}
