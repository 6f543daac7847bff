package dev.mlbridge.spark;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.feature.RFormulaModel;
import org.apache.spark.ml.feature.SQLTransformer;
import org.apache.spark.ml.feature.StringIndexerModel;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.tuning.CrossValidatorModel;
import org.apache.spark.ml.tuning.TrainValidationSplitModel;

/** A fitted model as a flat list of stages, and which columns each reads and makes. */
final class Stages {
  private static final List<String> READS = List.of("inputCol", "inputCols", "featuresCol");
  private static final List<String> MAKES =
      List.of(
          "outputCol", "outputCols", "predictionCol", "probabilityCol", "rawPredictionCol", "leafCol", "quantilesCol", "topicDistributionCol");

  private Stages() {}

  /** Flattens pipelines and formulas, and tuned models to their best one. */
  static List<Transformer> flat(Transformer model) {
    List<Transformer> out = new ArrayList<>();
    add(model, out);
    return out;
  }

  private static void add(Transformer model, List<Transformer> out) {
    if (model instanceof PipelineModel p) {
      for (Transformer t : p.stages()) {
        add(t, out);
      }
    } else if (model instanceof CrossValidatorModel cv) {
      add(cv.bestModel(), out);
    } else if (model instanceof TrainValidationSplitModel tv) {
      add(tv.bestModel(), out);
    } else if (model instanceof RFormulaModel formula) {
      add(formula.pipelineModel(), out);
    } else {
      out.add(model);
    }
  }

  /**
   * Leaves out the StringIndexers whose columns are absent: labels. Spark passes over them itself, except with
   * {@code handleInvalid="skip"}: there it demands the label of rows to predict.
   */
  static Transformer withoutLabels(Transformer model, Set<String> columns) {
    List<Transformer> all = flat(model);
    List<Transformer> kept = new ArrayList<>();
    Set<String> there = new LinkedHashSet<>(columns);
    for (Transformer stage : all) {
      if (stage instanceof SQLTransformer) {
        return model; // the columns it makes are not its parameters
      }
      boolean label = stage instanceof StringIndexerModel && reads(stage).stream().noneMatch(there::contains);
      if (!label) {
        kept.add(stage);
        there.addAll(makes(stage));
      }
    }
    return kept.size() == all.size() ? model : new PipelineModel(model.uid(), kept.toArray(Transformer[]::new));
  }

  /** Returns the last stage that predicts. */
  static Optional<Transformer> predictor(Transformer model) {
    List<Transformer> all = flat(model);
    for (int i = all.size() - 1; i >= 0; i--) {
      if (all.get(i).hasParam("predictionCol")) {
        return Optional.of(all.get(i));
      }
    }
    return Optional.empty();
  }

  /** Returns the columns of the last stage that makes any. */
  static Set<String> lastMade(Transformer model) {
    List<Transformer> all = flat(model);
    for (int i = all.size() - 1; i >= 0; i--) {
      Set<String> made = makes(all.get(i));
      if (!made.isEmpty()) {
        return made;
      }
    }
    return Set.of();
  }

  /** Returns the value of a column parameter, if the stage has it and it is set. */
  static Optional<String> column(Transformer stage, String param) {
    return columns(stage, param).stream().findFirst();
  }

  /** Returns the columns a stage reads. */
  static Set<String> reads(Transformer stage) {
    Set<String> out = new LinkedHashSet<>();
    READS.forEach(p -> out.addAll(columns(stage, p)));
    return out;
  }

  /** Returns the columns a stage makes. */
  static Set<String> makes(Transformer stage) {
    Set<String> out = new LinkedHashSet<>();
    MAKES.forEach(p -> out.addAll(columns(stage, p)));
    return out;
  }

  private static List<String> columns(Transformer stage, String param) {
    if (!stage.hasParam(param)) {
      return List.of();
    }
    Param<Object> p = stage.getParam(param);
    scala.Option<Object> value = stage.get(p).isDefined() ? stage.get(p) : stage.getDefault(p);
    if (value.isEmpty()) {
      return List.of();
    }
    if (value.get() instanceof String[] many) {
      return stage.isSet(p) ? List.of(many) : List.of();
    }
    String one = String.valueOf(value.get());
    boolean generated = one.equals(stage.uid() + "__output") && reads0(stage);
    return one.isEmpty() || generated ? List.of() : List.of(one);
  }

  /** A stage of several columns keeps the default name of its single output, which it never makes. */
  private static boolean reads0(Transformer stage) {
    return stage.hasParam("inputCols") && stage.isSet(stage.getParam("inputCols")) && stage.hasParam("outputCols");
  }
}
