package dev.mlbridge.wire;

import dev.mlbridge.DType;
import dev.mlbridge.Tensor;
import dev.mlbridge.grpc.inference.InferParameter;
import dev.mlbridge.grpc.inference.InferTensorContents;
import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** Typed tensors, and the parameter that lists missing elements. */
public final class Contents {
  /** The name of that parameter. */
  public static final String MISSING = "missing";

  private static final Pattern INDICES = Pattern.compile("[0-9]{1,18}(,[0-9]{1,18})*");
  private static final int DIGITS = 20; // of one index and its comma, at most
  private static final int[] NONE = {};

  private Contents() {}

  /**
   * Reads one typed tensor.
   *
   * @param where how messages name the tensor
   * @throws dev.mlbridge.MlbridgeException InputError where a field of another datatype is filled, the count is not the
   *     shape's, or a number is out of range
   */
  public static Tensor read(InferTensorContents contents, String datatype, List<Long> shape, String where) {
    int count = Wire.elements(shape, where);
    DType dtype = Wire.known(datatype, where);
    if (dtype == DType.FLOAT16) {
      throw Wire.input(where + ": FP16 has no typed contents; send it raw");
    }
    List<?> values = field(contents, dtype);
    if (filled(contents) != values.size()) {
      throw Wire.input(where + ": a field of another datatype than " + datatype + " is filled");
    }
    if (values.size() != count) {
      throw Wire.input(where + ": " + values.size() + " elements, expected " + count + " for " + datatype + shape);
    }
    if (dtype == DType.STRING) {
      return Tensor.ofStrings(Wire.texts(contents.getBytesContentsList(), where), Wire.sizes(shape));
    }
    ByteBuffer out = ByteBuffer.allocate(Math.multiplyExact(count, dtype.size())).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < count; i++) {
      put(out, contents, dtype, i, where);
    }
    return Tensor.ofBytes(dtype, out.rewind(), Wire.sizes(shape));
  }

  private static List<?> field(InferTensorContents c, DType dtype) {
    return switch (dtype) {
      case BOOL -> c.getBoolContentsList();
      case INT8, INT16, INT32 -> c.getIntContentsList();
      case INT64 -> c.getInt64ContentsList();
      case UINT8, UINT16, UINT32 -> c.getUintContentsList();
      case UINT64 -> c.getUint64ContentsList();
      case FLOAT32 -> c.getFp32ContentsList();
      case FLOAT64 -> c.getFp64ContentsList();
      default -> c.getBytesContentsList();
    };
  }

  private static int filled(InferTensorContents c) {
    return c.getBoolContentsCount() + c.getIntContentsCount() + c.getInt64ContentsCount() + c.getUintContentsCount()
        + c.getUint64ContentsCount() + c.getFp32ContentsCount() + c.getFp64ContentsCount() + c.getBytesContentsCount();
  }

  private static void put(ByteBuffer out, InferTensorContents c, DType dtype, int i, String where) {
    switch (dtype) {
      case BOOL -> out.put((byte) (c.getBoolContents(i) ? 1 : 0));
      case INT8 -> out.put((byte) within(c.getIntContents(i), Byte.MIN_VALUE, Byte.MAX_VALUE, dtype, where));
      case INT16 -> out.putShort((short) within(c.getIntContents(i), Short.MIN_VALUE, Short.MAX_VALUE, dtype, where));
      case INT32 -> out.putInt(c.getIntContents(i));
      case INT64 -> out.putLong(c.getInt64Contents(i));
      case UINT8 -> out.put((byte) within(Integer.toUnsignedLong(c.getUintContents(i)), 0, 255, dtype, where));
      case UINT16 -> out.putShort((short) within(Integer.toUnsignedLong(c.getUintContents(i)), 0, 65535, dtype, where));
      case UINT32 -> out.putInt(c.getUintContents(i));
      case UINT64 -> out.putLong(c.getUint64Contents(i));
      case FLOAT32 -> out.putFloat(c.getFp32Contents(i));
      default -> out.putDouble(c.getFp64Contents(i));
    }
  }

  private static long within(long value, long low, long high, DType dtype, String where) {
    if (value < low || value > high) {
      throw Wire.input(where + ": " + value + " is out of the range of " + dtype.oip() + ", " + low + ".." + high);
    }
    return value;
  }

  /** Writes a tensor typed; float16 has no typed form. */
  public static InferTensorContents write(Tensor t) {
    InferTensorContents.Builder out = InferTensorContents.newBuilder();
    ByteBuffer b = t.bytes();
    for (int i = 0; i < t.size(); i++) {
      switch (t.dtype()) {
        case BOOL -> out.addBoolContents(b.get(i) != 0);
        case INT8 -> out.addIntContents(b.get(i));
        case INT16 -> out.addIntContents(b.getShort(2 * i));
        case INT32 -> out.addIntContents(b.getInt(4 * i));
        case INT64 -> out.addInt64Contents(b.getLong(8 * i));
        case UINT8 -> out.addUintContents(Byte.toUnsignedInt(b.get(i)));
        case UINT16 -> out.addUintContents(Short.toUnsignedInt(b.getShort(2 * i)));
        case UINT32 -> out.addUintContents(b.getInt(4 * i));
        case UINT64 -> out.addUint64Contents(b.getLong(8 * i));
        case FLOAT32 -> out.addFp32Contents(b.getFloat(4 * i));
        case FLOAT64 -> out.addFp64Contents(b.getDouble(8 * i));
        case STRING -> out.addBytesContents(text(t.strings()[i]));
        case FLOAT16, BFLOAT16 -> throw new IllegalArgumentException(t.dtype() + " has no typed form");
      }
    }
    return out.build();
  }

  private static ByteString text(String value) {
    return UnsafeByteOperations.unsafeWrap(Wire.octets(value));
  }

  // -------------------------------------------------- missing elements

  /** Reads the flat row-major indices of missing elements of a tensor of that size. */
  public static int[] missing(Map<String, InferParameter> parameters, int size, String where) {
    InferParameter parameter = parameters.get(MISSING);
    if (parameter == null) {
      return NONE;
    }
    String text = parameter.getStringParam();
    boolean isText = parameter.getParameterChoiceCase() == InferParameter.ParameterChoiceCase.STRING_PARAM;
    if (!isText || text.length() > (long) DIGITS * Math.max(size, 1)) {
      throw Wire.input(where + ": the parameter 'missing' must be a string of indices within the tensor");
    }
    if (text.isEmpty()) {
      return NONE;
    }
    if (!INDICES.matcher(text).matches()) {
      throw Wire.input(where + ": the parameter 'missing' must be decimal indices joined by commas");
    }
    String[] items = text.split(",");
    int[] out = new int[items.length];
    for (int i = 0; i < out.length; i++) {
      long index = Long.parseLong(items[i]);
      if (index >= size) {
        throw Wire.input(where + ": the parameter 'missing' names element " + index + " of " + size);
      }
      out[i] = (int) index;
    }
    return out;
  }

  /** Makes a string parameter. */
  public static InferParameter text(CharSequence value) {
    return InferParameter.newBuilder().setStringParam(value.toString()).build();
  }
}
