"""PMML files in the JVM: expected values are the formulas the files state."""

from __future__ import annotations

import numpy as np
import pytest

import mlbridge as mb
from mlbridge import errors
from mlbridge.artifact import open_artifact
from mlbridge.runtimes.jvm import JvmRuntime
from mlbridge.runtimes.jvm.command import JAR

pytestmark = [pytest.mark.jvm, pytest.mark.skipif(not JAR.is_file(), reason="the jar is not built: make jvm")]

HEAD = '<?xml version="1.0"?><PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>'
LOGISTIC = (
    HEAD
    + """<DataDictionary>
 <DataField name="age" optype="continuous" dataType="double"/>
 <DataField name="visits" optype="continuous" dataType="integer"/>
 <DataField name="plan" optype="categorical" dataType="string"><Value value="basic"/><Value value="plüs"/><Value value="pro"/></DataField>
 <DataField name="y" optype="categorical" dataType="string"><Value value="no"/><Value value="yes"/></DataField>
</DataDictionary>
<RegressionModel functionName="classification" normalizationMethod="logit">
 <MiningSchema><MiningField name="age" missingValueReplacement="40"/><MiningField name="visits"/>
  <MiningField name="plan"/><MiningField name="y" usageType="target"/></MiningSchema>
 <RegressionTable intercept="-1.5" targetCategory="yes">
  <NumericPredictor name="age" coefficient="0.03125"/><NumericPredictor name="visits" coefficient="-0.25"/>
  <CategoricalPredictor name="plan" value="plüs" coefficient="0.5"/><CategoricalPredictor name="plan" value="pro" coefficient="2"/>
 </RegressionTable><RegressionTable intercept="0" targetCategory="no"/>
</RegressionModel></PMML>"""
)
TREE = (
    HEAD
    + """<DataDictionary><DataField name="x" optype="continuous" dataType="double"/>
 <DataField name="k" optype="categorical" dataType="integer"><Value value="1"/><Value value="5"/><Value value="9"/></DataField>
 <DataField name="y" optype="continuous" dataType="double"/></DataDictionary>
<TreeModel functionName="regression" missingValueStrategy="none" noTrueChildStrategy="returnNullPrediction" splitCharacteristic="multiSplit">
 <MiningSchema><MiningField name="x"/><MiningField name="k" invalidValueTreatment="asIs"/><MiningField name="y" usageType="target"/></MiningSchema>
 <Node id="0"><True/>
  <Node id="1" score="10.5"><SimplePredicate field="x" operator="lessOrEqual" value="0.1"/></Node>
  <Node id="2" score="-3"><CompoundPredicate booleanOperator="and"><SimplePredicate field="x" operator="greaterThan" value="0.1"/>
   <SimpleSetPredicate field="k" booleanOperator="isIn"><Array type="int" n="2">1 9</Array></SimpleSetPredicate></CompoundPredicate></Node>
 </Node></TreeModel></PMML>"""
)


def load(tmp_path, text, **keywords):
    path = tmp_path / "model.pmml"
    path.write_text(text, encoding="utf-8")
    return mb.load(f"jvm:{path}", trust="code", **keywords)


def test_a_logistic_regression_answers_its_formula(tmp_path):
    rng = np.random.default_rng(0)
    age, visits = rng.normal(40, 20, 200), rng.integers(0, 30, 200)
    plan = rng.choice(["basic", "plüs", "pro"], 200)
    age[::7] = np.nan  # replaced by 40, says the file
    z = -1.5 + 0.03125 * np.nan_to_num(age, nan=40.0) - 0.25 * visits + np.select([plan == "plüs", plan == "pro"], [0.5, 2.0])
    yes = 1 / (1 + np.exp(-z))
    with load(tmp_path, LOGISTIC) as model:
        got = model.predict({"age": age, "visits": visits, "plan": plan.astype(object)})
        columns = [c.name for c in model.signature.output("probabilities").columns]
    np.testing.assert_allclose(got["probabilities"][:, columns.index("yes")], yes, rtol=1e-12)
    decided = z != 0  # the file does not say who wins a tie
    assert list(got["label"][decided]) == list(np.where(yes > 0.5, "yes", "no")[decided])


def test_a_row_without_a_needed_value_answers_missing(tmp_path):
    with load(tmp_path, LOGISTIC) as model:
        got = model.predict({"age": [1.0], "visits": [np.nan], "plan": ["pro"]})
    assert got["label"][0] is None
    assert np.isnan(got["probabilities"]).all()


def test_a_tree_splits_at_its_thresholds_and_keeps_unknown_levels(tmp_path):
    x = np.array([0.1, np.nextafter(0.1, 1), 5.0, 5.0, 5.0])
    with load(tmp_path, TREE) as model:
        assert model.signature.input("categorical").columns[0].unknown == "keep"
        got = model.predict({"x": x, "k": [5, 1, 9, 5, 77]})["prediction"]
    np.testing.assert_array_equal(got, [10.5, -3.0, -3.0, np.nan, np.nan])


def test_zero_rows_in_zero_rows_out(tmp_path):
    with load(tmp_path, LOGISTIC) as model:
        got = model.predict({"age": [], "visits": [], "plan": []})
    assert got["probabilities"].shape == (0, 2)


def test_an_unknown_level_is_refused_where_the_file_says_invalid(tmp_path):
    with load(tmp_path, LOGISTIC) as model, pytest.raises(errors.InputError, match="gold"):
        model.predict({"age": 1.0, "visits": 1, "plan": "gold"})


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><PMML version="4.4"><Header copyright="&e;"/></PMML>',
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><PMML version="4.4"><Header copyright="&b;"/></PMML>',
        LOGISTIC[: len(LOGISTIC) // 2],
        HEAD + "</PMML>",
        LOGISTIC.replace("RegressionModel", "OracleModel"),
        LOGISTIC.replace('coefficient="0.03125"', 'coefficient="much"'),
    ],
    ids=["external entity", "entities", "truncated", "no model", "unknown model", "no number"],
)
def test_what_is_no_pmml_is_an_artifact_error(tmp_path, text):
    path = tmp_path / "bad.pmml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(errors.ArtifactError):
        JvmRuntime().load(open_artifact(path))


def numbers(*names):
    return "".join(f'<DataField name="{n}" optype="continuous" dataType="double"/>' for n in names)


def schema(*names):
    return "<MiningSchema>" + "".join(f'<MiningField name="{n}"/>' for n in names) + "</MiningSchema>"


NETWORK = (
    HEAD
    + f"""<DataDictionary>{numbers("x", "z", "y")}</DataDictionary>
<NeuralNetwork functionName="regression" activationFunction="tanh">
 <MiningSchema><MiningField name="x"/><MiningField name="z"/><MiningField name="y" usageType="target"/></MiningSchema>
 <NeuralInputs><NeuralInput id="i"><DerivedField optype="continuous" dataType="double">
   <NormContinuous field="x"><LinearNorm orig="0" norm="0"/><LinearNorm orig="8" norm="1"/></NormContinuous></DerivedField></NeuralInput>
  <NeuralInput id="j"><DerivedField optype="continuous" dataType="double"><FieldRef field="z"/></DerivedField></NeuralInput></NeuralInputs>
 <NeuralLayer><Neuron id="h" bias="0.1"><Con from="i" weight="0.5"/><Con from="j" weight="-0.25"/></Neuron></NeuralLayer>
 <NeuralLayer activationFunction="identity"><Neuron id="o" bias="0.3"><Con from="h" weight="2"/></Neuron></NeuralLayer>
 <NeuralOutputs><NeuralOutput outputNeuron="o"><DerivedField optype="continuous" dataType="double"><FieldRef field="y"/></DerivedField>
 </NeuralOutput></NeuralOutputs></NeuralNetwork></PMML>"""
)
SCORECARD = (
    HEAD
    + f"""<DataDictionary>{numbers("age", "y")}<DataField name="team" optype="categorical" dataType="string">
 <Value value="it"/><Value value="law"/></DataField></DataDictionary>
<Scorecard functionName="regression" useReasonCodes="false" initialScore="100">
 <MiningSchema><MiningField name="age"/><MiningField name="team"/><MiningField name="y" usageType="target"/></MiningSchema>
 <Output><OutputField name="total" feature="predictedValue" dataType="double" optype="continuous"/></Output>
 <Characteristics>
  <Characteristic name="a"><Attribute partialScore="-9"><SimplePredicate field="team" operator="isMissing"/></Attribute>
   <Attribute partialScore="19"><SimplePredicate field="team" operator="equal" value="law"/></Attribute>
   <Attribute partialScore="3"><SimplePredicate field="team" operator="equal" value="it"/></Attribute></Characteristic>
  <Characteristic name="b"><Attribute partialScore="-1"><SimplePredicate field="age" operator="isMissing"/></Attribute>
   <Attribute partialScore="-3"><SimplePredicate field="age" operator="lessOrEqual" value="18"/></Attribute>
   <Attribute partialScore="12"><SimplePredicate field="age" operator="greaterThan" value="18"/></Attribute></Characteristic>
 </Characteristics></Scorecard></PMML>"""
)


def stump(cut, below, above):
    """Return a tree of one split, where what is missing goes above."""
    return f"""<TreeModel functionName="regression" missingValueStrategy="defaultChild">{schema("x", "g")}<Node id="0" score="0" defaultChild="2">
 <True/><Node id="1" score="{below}"><SimplePredicate field="x" operator="lessThan" value="{cut}"/></Node>
 <Node id="2" score="{above}"><SimplePredicate field="x" operator="greaterOrEqual" value="{cut}"/></Node></Node></TreeModel>"""


MINING = (
    HEAD
    + f"""<DataDictionary>{numbers("x", "y")}<DataField name="g" optype="categorical" dataType="string"><Value value="a"/><Value value="b"/>
 </DataField></DataDictionary><MiningModel functionName="regression">
 <MiningSchema><MiningField name="x"/><MiningField name="g"/><MiningField name="y" usageType="target"/></MiningSchema>
 <Targets><Target field="y" rescaleConstant="5" rescaleFactor="2"/></Targets>
 <Segmentation multipleModelMethod="sum"><Segment id="1"><True/>{stump(0, -1, 1)}</Segment>
  <Segment id="2"><SimplePredicate field="g" operator="equal" value="b"/>{stump(1, 10, 20)}</Segment></Segmentation></MiningModel></PMML>"""
)


@pytest.mark.parametrize(
    ("text", "rows", "want"),
    [
        (NETWORK, [(4.0, 0.5), (-16.0, 1.0)], [0.3 + 2 * np.tanh(0.1 + 0.25 - 0.125), 0.3 + 2 * np.tanh(0.1 - 1.0 - 0.25)]),
        (SCORECARD, [(30.0, "it"), (None, "law"), (40.0, None), (18.0, "law")], [115.0, 118.0, 103.0, 116.0]),
        (MINING, [(-1.0, "a"), (0.5, "b"), (None, "b"), (7.0, None)], [3.0, 27.0, 47.0, 7.0]),
    ],
    ids=["network", "scorecard", "mining"],
)
def test_other_kinds_of_model_answer_what_their_files_state(text, rows, want, tmp_path):
    with load(tmp_path, text) as model:
        names = [c.name for c in model.signature.columns]
        got = model.predict([dict(zip(names, row)) for row in rows])["prediction"]
    np.testing.assert_allclose(got, want, rtol=1e-14)
