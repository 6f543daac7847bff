package dev.mlbridge.client;

import dev.mlbridge.DType;
import dev.mlbridge.Signature;
import dev.mlbridge.Tensor;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A batch larger than a message, cut by rows, and the answers put together again. */
final class Parts {
  private Parts() {}

  static List<Map<String, Tensor>> of(Signature signature, Map<String, Tensor> feeds, long maxBytes) {
    long size = feeds.values().stream().mapToLong(Parts::bytes).sum();
    if (size < maxBytes * 0.9 || !signature.batched()) {
      return List.of(feeds);
    }
    int rows = (int) feeds.values().iterator().next().dim(0);
    int step = (int) Math.max(1, rows * (maxBytes * 0.8) / size);
    List<Map<String, Tensor>> out = new ArrayList<>();
    for (int from = 0; from < rows; from += step) {
      Map<String, Tensor> part = new LinkedHashMap<>();
      int to = Math.min(rows, from + step);
      int start = from;
      feeds.forEach((name, tensor) -> part.put(name, cut(tensor, start, to)));
      out.add(part);
    }
    return out;
  }

  private static long bytes(Tensor t) {
    if (t.dtype() != DType.STRING) {
      return t.bytes().remaining();
    }
    long out = 0;
    for (String s : t.strings()) {
      out += 4 + (s == null ? 0 : 3L * s.length()); // bytes of UTF-8, at most
    }
    return out;
  }

  private static Tensor cut(Tensor t, int from, int to) {
    long[] shape = t.shape();
    long wide = shape[0] == 0 ? 0 : t.size() / shape[0];
    shape[0] = to - from;
    if (t.dtype() == DType.STRING) {
      return Tensor.ofStrings(Arrays.copyOfRange(t.strings(), (int) (from * wide), (int) (to * wide)), shape);
    }
    int row = (int) (wide * t.dtype().size());
    return Tensor.ofBytes(t.dtype(), t.bytes().slice(from * row, (to - from) * row), shape);
  }

  static Map<String, Tensor> joined(List<Map<String, Tensor>> answers) {
    if (answers.size() == 1) {
      return answers.get(0);
    }
    Map<String, Tensor> out = new LinkedHashMap<>();
    for (String name : answers.get(0).keySet()) {
      out.put(name, joined(answers.stream().map(a -> a.get(name)).toList(), answers.get(0).get(name)));
    }
    return out;
  }

  private static Tensor joined(List<Tensor> parts, Tensor first) {
    long[] shape = first.shape();
    shape[0] = parts.stream().mapToLong(t -> t.dim(0)).sum();
    if (first.dtype() == DType.STRING) {
      return Tensor.ofStrings(parts.stream().flatMap(t -> Arrays.stream(t.strings())).toArray(String[]::new), shape);
    }
    ByteBuffer out = ByteBuffer.allocate(Math.toIntExact(parts.stream().mapToLong(t -> t.bytes().remaining()).sum()));
    parts.forEach(t -> out.put(t.bytes()));
    return Tensor.ofBytes(first.dtype(), out.flip(), shape);
  }
}
