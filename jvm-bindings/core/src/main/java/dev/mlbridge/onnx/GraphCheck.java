package dev.mlbridge.onnx;

import dev.mlbridge.MlbridgeException;
import dev.mlbridge.MlbridgeException.Kind;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * What an ONNX file of trust {@code data} may hold, found by walking the whole proto before any engine sees it: no data
 * outside the file, no training part, no local functions, a limited number of nodes.
 */
final class GraphCheck {
  private static final int MAX_NODES = 1_000_000;
  private static final int MAX_DEPTH = 64;

  private int nodes;

  /** The messages of the walk, with the fields that lead to tensors or nodes. */
  private enum Message {
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    SPARSE,
    TENSOR,
    LEAF;

    Message child(int field) {
      return switch (this) {
        case MODEL -> field == 7 ? GRAPH : LEAF;
        case GRAPH -> field == 1 ? NODE : field == 5 ? TENSOR : field == 15 ? SPARSE : LEAF;
        case NODE -> field == 5 ? ATTRIBUTE : LEAF;
        case ATTRIBUTE ->
            switch (field) {
              case 5, 10 -> TENSOR;
              case 6, 11 -> GRAPH;
              case 22, 23 -> SPARSE;
              default -> LEAF;
            };
        case SPARSE -> field == 1 || field == 2 ? TENSOR : LEAF;
        default -> LEAF;
      };
    }
  }

  static void check(byte[] model) {
    new GraphCheck().walk(ByteBuffer.wrap(model).order(ByteOrder.LITTLE_ENDIAN), Message.MODEL, 0);
  }

  private void walk(ByteBuffer in, Message message, int depth) {
    if (depth > MAX_DEPTH) {
      throw refuse("its graphs are nested deeper than " + MAX_DEPTH);
    }
    while (in.hasRemaining()) {
      long tag = varint(in);
      int field = (int) (tag >>> 3);
      long value = 0;
      switch ((int) (tag & 7)) {
        case 0 -> value = varint(in);
        case 1 -> skip(in, 8);
        case 2 -> value = nested(in, message, field, depth);
        case 5 -> skip(in, 4);
        default -> throw refuse("it is no protocol buffer");
      }
      if (message == Message.MODEL && (field == 20 || field == 25)) {
        throw refuse(field == 20 ? "it holds a training part" : "it holds local functions, which are not supported here");
      }
      if (message == Message.TENSOR && (field == 13 || field == 14 && value != 0)) {
        throw refuse("it names data outside the file");
      }
    }
  }

  private long nested(ByteBuffer in, Message message, int field, int depth) {
    long length = varint(in);
    if (length < 0 || length > in.remaining()) {
      throw refuse("it is cut off");
    }
    Message child = message.child(field);
    if (child == Message.NODE && ++nodes > MAX_NODES) {
      throw refuse("it has more than " + MAX_NODES + " nodes");
    }
    if (child != Message.LEAF) {
      walk(in.slice(in.position(), (int) length), child, depth + 1);
    }
    in.position(in.position() + (int) length);
    return 0;
  }

  private static void skip(ByteBuffer in, int bytes) {
    if (in.remaining() < bytes) {
      throw refuse("it is cut off");
    }
    in.position(in.position() + bytes);
  }

  private static long varint(ByteBuffer in) {
    long out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (!in.hasRemaining()) {
        throw refuse("it is cut off");
      }
      byte b = in.get();
      out |= (long) (b & 0x7F) << shift;
      if (b >= 0) {
        return out;
      }
    }
    throw refuse("it is no protocol buffer");
  }

  private static MlbridgeException refuse(String text) {
    return MlbridgeException.of(Kind.ARTIFACT, "the ONNX file is refused: " + text);
  }
}
