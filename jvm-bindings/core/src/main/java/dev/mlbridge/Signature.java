package dev.mlbridge;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

/**
 * The names, dtypes, shapes and rules of a model's inputs and outputs. {@link SignatureJson} is its one
 * serialisation.
 *
 * @param inputs in order, names unique
 * @param outputs in order, names unique, one at least
 */
public record Signature(List<TensorSpec> inputs, List<TensorSpec> outputs) {
  /** Checks the rules of a signature; SignatureError where some are broken. */
  public Signature {
    inputs = List.copyOf(inputs);
    outputs = List.copyOf(outputs);
    List<String> problems = new ArrayList<>();
    for (String n : twice(inputs.stream().map(TensorSpec::name).toList())) {
      problems.add("two inputs are named '" + n + "'");
    }
    for (String n : twice(outputs.stream().map(TensorSpec::name).toList())) {
      problems.add("two outputs are named '" + n + "'");
    }
    if (outputs.isEmpty()) {
      problems.add("a signature needs at least one output");
    }
    List<String> columns =
        inputs.stream().flatMap(s -> s.columns().stream()).map(Column::name).toList();
    for (String n : twice(columns)) {
      problems.add("two input columns are named '" + n + "'");
    }
    if (!problems.isEmpty()) {
      throw MlbridgeException.of(MlbridgeException.Kind.SIGNATURE, problems);
    }
  }

  private static Set<String> twice(List<String> names) {
    Set<String> seen = new HashSet<>();
    Set<String> out = new TreeSet<>();
    for (String n : names) {
      if (!seen.add(n)) {
        out.add(n);
      }
    }
    return out;
  }

  /** Returns whether rows are independent: every input and output starts with {@code rows}. */
  public boolean batched() {
    return !inputs.isEmpty()
        && inputs.stream().allMatch(TensorSpec::batched)
        && outputs.stream().allMatch(TensorSpec::batched);
  }

  /** Returns the input of that name. */
  public Optional<TensorSpec> input(String name) {
    return inputs.stream().filter(s -> s.name().equals(name)).findFirst();
  }

  /** Returns the output of that name. */
  public Optional<TensorSpec> output(String name) {
    return outputs.stream().filter(s -> s.name().equals(name)).findFirst();
  }

  /** Returns the one serialisation: compact JSON in a fixed order. */
  public String toJson() {
    return SignatureJson.write(this);
  }

  /** Reads the one serialisation; ArtifactError where it is malformed or newer than this library. */
  public static Signature fromJson(String text) {
    return SignatureJson.read(text);
  }

  @Override
  public String toString() {
    return join(inputs) + " -> " + join(outputs);
  }

  private static String join(List<TensorSpec> specs) {
    return specs.stream().map(TensorSpec::toString).collect(Collectors.joining(", "));
  }
}
