"""Ask a PMML file in a JVM, as one of ours. Needs Java 17 and the jar that `make jvm` builds.

python examples/ask_jvm.py
"""

import tempfile
from pathlib import Path

import mlbridge as mb

PMML = """<?xml version="1.0"?><PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>
<DataDictionary>
 <DataField name="age" optype="continuous" dataType="double"/>
 <DataField name="plan" optype="categorical" dataType="string"><Value value="basic"/><Value value="pro"/></DataField>
 <DataField name="leaves" optype="categorical" dataType="string"><Value value="no"/><Value value="yes"/></DataField>
</DataDictionary>
<RegressionModel functionName="classification" normalizationMethod="logit">
 <MiningSchema><MiningField name="age" missingValueReplacement="40"/><MiningField name="plan"/>
  <MiningField name="leaves" usageType="target"/></MiningSchema>
 <RegressionTable intercept="-1.5" targetCategory="yes">
  <NumericPredictor name="age" coefficient="0.03"/><CategoricalPredictor name="plan" value="pro" coefficient="2"/>
 </RegressionTable><RegressionTable intercept="0" targetCategory="no"/>
</RegressionModel></PMML>"""


def main() -> None:
    """`jvm:` starts a JVM in a process of its own; what it prints goes to the logger mlbridge.jvm."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "churn.pmml"
        path.write_text(PMML)
        # a class in a jar is asked the same way: mb.load("jvm:churn.jar#com.acme.Churn", trust="code")
        with mb.load(f"jvm:{path}", trust="code") as model:
            print(model.describe())
            print(model.predict([{"age": 30.0, "plan": "basic"}, {"age": None, "plan": "pro"}]))


if __name__ == "__main__":
    main()
