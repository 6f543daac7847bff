package dev.mlbridge.frames;

import dev.mlbridge.DType;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;

/** Column-major data, as R and Fortran keep it, to row-major. */
final class Transpose {
  private Transpose() {}

  static Tensor toRowMajor(Tensor in) {
    int[] source = sourceIndex(in);
    if (in.dtype() == DType.STRING) {
      String[] out = new String[source.length];
      for (int i = 0; i < out.length; i++) {
        out[i] = in.strings()[source[i]];
      }
      return Tensor.ofStrings(out, in.shape());
    }
    int size = in.dtype().size();
    ByteBuffer data = in.bytes();
    ByteBuffer out = ByteBuffer.allocate(data.limit());
    for (int i = 0; i < source.length; i++) {
      out.put(i * size, data, source[i] * size, size);
    }
    return Tensor.ofBytes(in.dtype(), out, in.shape());
  }

  private static int[] sourceIndex(Tensor in) {
    int rank = in.rank();
    int[] strides = new int[rank];
    int stride = 1;
    for (int axis = 0; axis < rank; axis++) {
      strides[axis] = stride;
      stride *= (int) in.dim(axis);
    }
    int[] out = new int[in.size()];
    int[] index = new int[rank];
    int position = 0;
    for (int i = 0; i < out.length; i++) {
      out[i] = position;
      for (int axis = rank - 1; axis >= 0; axis--) { // count up the row-major index
        position += strides[axis];
        if (++index[axis] < in.dim(axis)) {
          break;
        }
        position -= index[axis] * strides[axis];
        index[axis] = 0;
      }
    }
    return out;
  }
}
