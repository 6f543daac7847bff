package dev.mlbridge;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.util.Arrays;

/**
 * A named model's value: an element type, a shape, and row-major data in host memory.
 *
 * <p>Numbers live in a little-endian byte buffer, strings in an array whose null elements are missing values. A tensor
 * that a session receives is only valid during that call: {@link #copy} what is to be kept.
 */
public final class Tensor {
  private static final ByteBuffer NO_BYTES = ByteBuffer.allocate(0);
  private static final String[] NO_STRINGS = new String[0];

  private final DType dtype;
  private final long[] shape;
  private final ByteBuffer data;
  private final String[] strings;

  private Tensor(DType dtype, long[] shape, ByteBuffer data, String[] strings) {
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
    this.strings = strings;
  }

  /**
   * Wraps row-major little-endian bytes; the buffer's remaining bytes are not copied.
   *
   * @throws MlbridgeException (InputError) if their number does not fit the shape
   */
  public static Tensor ofBytes(DType dtype, ByteBuffer bytes, long... shape) {
    if (dtype == DType.STRING) {
      throw input("strings are not bytes; use ofStrings");
    }
    if (count(shape) * dtype.size() != bytes.remaining()) {
      throw input(
          "shape " + Arrays.toString(shape) + " of " + dtype + " needs " + count(shape) * dtype.size()
              + " bytes, not " + bytes.remaining());
    }
    return new Tensor(dtype, shape.clone(), bytes.slice().order(ByteOrder.LITTLE_ENDIAN), NO_STRINGS);
  }

  /** Makes a float64 tensor. */
  public static Tensor of(double[] values, long... shape) {
    ByteBuffer out = allocate(values.length, Double.BYTES);
    out.asDoubleBuffer().put(values);
    return ofBytes(DType.FLOAT64, out, shape);
  }

  /** Makes a float32 tensor. */
  public static Tensor of(float[] values, long... shape) {
    ByteBuffer out = allocate(values.length, Float.BYTES);
    out.asFloatBuffer().put(values);
    return ofBytes(DType.FLOAT32, out, shape);
  }

  /** Makes an int32 tensor: indices, or codes of categories. */
  public static Tensor of(int[] values, long... shape) {
    ByteBuffer out = allocate(values.length, Integer.BYTES);
    out.asIntBuffer().put(values);
    return ofBytes(DType.INT32, out, shape);
  }

  /** Makes an int64 tensor. */
  public static Tensor of(long[] values, long... shape) {
    ByteBuffer out = allocate(values.length, Long.BYTES);
    out.asLongBuffer().put(values);
    return ofBytes(DType.INT64, out, shape);
  }

  /** Makes a bool tensor. */
  public static Tensor of(boolean[] values, long... shape) {
    ByteBuffer out = allocate(values.length, 1);
    for (int i = 0; i < values.length; i++) {
      out.put(i, (byte) (values[i] ? 1 : 0));
    }
    return ofBytes(DType.BOOL, out, shape);
  }

  /** Makes a string tensor; a null element is a missing value. */
  public static Tensor ofStrings(String[] values, long... shape) {
    if (count(shape) != values.length) {
      throw input("shape " + Arrays.toString(shape) + " does not hold " + values.length + " strings");
    }
    return new Tensor(DType.STRING, shape.clone(), NO_BYTES, values);
  }

  private static ByteBuffer allocate(int count, int size) {
    return ByteBuffer.allocate(Math.multiplyExact(count, size)).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static MlbridgeException input(String text) {
    return MlbridgeException.of(MlbridgeException.Kind.INPUT, text);
  }

  private static long count(long[] shape) {
    long out = 1;
    for (long d : shape) {
      out = Math.multiplyExact(out, d);
    }
    return out;
  }

  /** Returns the element type. */
  public DType dtype() {
    return dtype;
  }

  /** Returns a copy of the shape. */
  public long[] shape() {
    return shape.clone();
  }

  /** Returns the number of axes. */
  public int rank() {
    return shape.length;
  }

  /** Returns the size of an axis; a negative one counts from the last. */
  public long dim(int axis) {
    return shape[axis < 0 ? shape.length + axis : axis];
  }

  /** Returns the number of elements. */
  public int size() {
    return Math.toIntExact(count(shape));
  }

  /** Returns the bytes of a numeric tensor: a view, little-endian, from position 0. */
  public ByteBuffer bytes() {
    return data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Returns a view of float64 elements. */
  public DoubleBuffer doubles() {
    demand(DType.FLOAT64);
    return data.asDoubleBuffer();
  }

  /** Returns a view of float32 elements. */
  public FloatBuffer floats() {
    demand(DType.FLOAT32);
    return data.asFloatBuffer();
  }

  /** Returns a view of int32 elements. */
  public IntBuffer ints() {
    demand(DType.INT32);
    return data.asIntBuffer();
  }

  /** Returns a view of int64 elements. */
  public LongBuffer longs() {
    demand(DType.INT64);
    return data.asLongBuffer();
  }

  /** Returns the strings themselves; a null element is a missing value. */
  public String[] strings() {
    demand(DType.STRING);
    return strings;
  }

  private void demand(DType wanted) {
    if (dtype != wanted) {
      throw input("the tensor is " + dtype + ", not " + wanted);
    }
  }

  /** Copies float64 elements into an array. */
  public double[] toDoubles() {
    double[] out = new double[size()];
    doubles().get(out);
    return out;
  }

  /** Copies int32 elements into an array. */
  public int[] toInts() {
    int[] out = new int[size()];
    ints().get(out);
    return out;
  }

  /** Returns one element of any real type as a double; its row-major index counts from 0. */
  public double number(int index) {
    return switch (dtype) {
      case BOOL, INT8 -> data.get(index);
      case UINT8 -> Byte.toUnsignedInt(data.get(index));
      case INT16 -> data.getShort(2 * index);
      case UINT16 -> Short.toUnsignedInt(data.getShort(2 * index));
      case INT32 -> data.getInt(4 * index);
      case UINT32 -> Integer.toUnsignedLong(data.getInt(4 * index));
      case INT64 -> data.getLong(8 * index);
      case FLOAT32 -> data.getFloat(4 * index);
      case FLOAT64 -> data.getDouble(8 * index);
      case FLOAT16 -> Half.toFloat(data.getShort(2 * index));
      case UINT64, BFLOAT16, STRING -> throw input("a " + dtype + " is no double");
    };
  }

  /** Returns a tensor of its own memory, which may be kept. */
  public Tensor copy() {
    ByteBuffer own = ByteBuffer.allocate(data.limit()).put(0, data, 0, data.limit());
    return new Tensor(dtype, shape, own.order(ByteOrder.LITTLE_ENDIAN), strings.clone());
  }

  /** Returns the same data in another shape of equal size. */
  public Tensor reshape(long... other) {
    if (count(other) != count(shape)) {
      throw input("cannot reshape " + Arrays.toString(shape) + " to " + Arrays.toString(other));
    }
    return new Tensor(dtype, other.clone(), data, strings);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Tensor t
        && dtype == t.dtype
        && Arrays.equals(shape, t.shape)
        && data.equals(t.data)
        && Arrays.equals(strings, t.strings);
  }

  @Override
  public int hashCode() {
    return 31 * Arrays.hashCode(shape) + dtype.hashCode() + data.hashCode() + Arrays.hashCode(strings);
  }

  @Override
  public String toString() {
    return dtype + Arrays.toString(shape);
  }
}
