"""The main job: train, wrap, convert, verify, save, reload, chain, fuse, score from Python and the command line.

Run it with `make demo`. Data: see README.md beside this file.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import train as teams
from rich.console import Console
from rich.table import Table

import mlbridge as mb
from mlbridge.errors import UnverifiedConversionWarning

OUT = Console()


def seconds(call, repeat: int = 15) -> float:
    """Return the median time of a call."""
    call()
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Run the whole story in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="credit-") as name:
        folder = Path(name)
        rows, test = teams.read_table()
        columns = teams.NUMBERS + teams.CATEGORIES
        sample = rows[columns].head(200)

        OUT.rule("train (as the teams would, without mlbridge)")
        prep, forest, boost = teams.train_prep(rows), teams.train_forest(rows), teams.train_boost(rows)
        prepared = prep.transform(rows[columns])
        network = teams.train_network(prepared, rows["risk"].to_numpy())

        OUT.rule("wrap, convert, verify, save, reload")
        loaded, table = (
            {},
            Table("model", "framework", "rows compared", "max relative error", "one row, native", "one row, mlbridge", "faster"),
        )
        sources = {
            "prep": (prep, sample, lambda x: prep.transform(x)),
            "forest": (forest, sample, lambda x: forest.predict_proba(x)),
            "boost": (boost, sample, lambda x: boost.predict_proba(x)),
            "network": (network, prepared[:200].astype(np.float32), None),
        }
        one = test[columns].head(1)
        for model_name, (native, given, ask) in sources.items():
            with mb.wrap(native, sample=given) as model:
                model.save(folder / f"{model_name}.mlb")
                report, framework = model.report, model.route.framework
            loaded[model_name] = mb.load(folder / f"{model_name}.mlb")
            feeds = loaded[model_name]._coercion.feeds(one if ask else prepared[:1].astype(np.float32))[0]
            before = seconds((lambda a=ask: a(one)) if ask else (lambda: native_network(network, prepared[:1])))
            after = seconds(lambda n=model_name, f=feeds: loaded[n].run(f), 200)
            table.add_row(
                model_name,
                framework,
                str(report.rows),
                f"{report.max_error:.1e}",
                f"{1e6 * before:,.0f} us",
                f"{1e6 * after:,.0f} us",
                f"{before / after:,.0f}x",
            )
        OUT.print(table)
        OUT.print(loaded["forest"].describe())

        OUT.rule("two more teams: R and Spark, from their files alone; no R and no Java here")
        loaded["logit"] = mb.load(teams.HERE / "r" / "logit.mlb")  # as R's mlb_save wrote it, R's answers for 64 rows in it
        loaded["r_forest"] = mb.load(teams.HERE / "r" / "forest.mlb")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnverifiedConversionWarning)  # the next lines verify it against Spark's own answers
            loaded["gbt"] = mb.load(teams.HERE / "spark" / "model")
        OUT.print(parity_with_r_and_spark(loaded))

        OUT.rule("chain: models of six teams, typed before anything runs")
        blend = mb.pipeline.weighted([2.0, 2.0, 1.0, 1.0, 1.0], classes=["bad", "good"])
        pipeline = mb.Pipeline(
            "credit",
            {n: m for n, m in loaded.items() if n != "r_forest"} | {"blend": blend},
            {
                "prep.features": "features",
                "prep.categorical": "categorical",
                "forest.features": "features",
                "forest.categorical": "categorical",
                "boost.features": "features",
                "boost.categorical": "categorical",
                "network.transformed": "prep.transformed",
                "logit.features": "features",
                "logit.categorical": "categorical",
                "gbt.features": "features",
                "gbt.categorical": "categorical",
                "blend.a": "forest.probabilities",
                "blend.b": "boost.probabilities",
                "blend.c": "network.probabilities",
                "blend.d": "logit.probabilities",
                "blend.e": "gbt.probabilities",
            },
            {"label": "blend.label", "probabilities": "blend.probabilities"},
            sample=sample,
        )
        for edge in pipeline.plan.edges:
            OUT.print(f"  {edge}", highlight=False)
        fused = pipeline.fuse(sample)
        OUT.print(f"fused into one graph: {fused.report}")
        answer = fused.predict(test[columns])
        r, spark = both(teams.HERE / "r" / "answers.csv", "logit", test), both(teams.HERE / "spark" / "answers.csv", "gbt", test)
        ours = 2 * forest.predict_proba(test[columns]) + 2 * boost.predict_proba(test[columns])
        by_hand = (ours + native_network(network, prep.transform(test[columns])) + r + spark) / 7
        error = np.abs(answer[["probabilities_bad", "probabilities_good"]].to_numpy() - by_hand).max()
        right = (answer["label"].to_numpy() == test["risk"].to_numpy()).mean()
        record = one.iloc[0].to_dict()
        slow, fast = seconds(lambda: pipeline.predict(record), 300), seconds(lambda: fused.predict(record), 300)
        OUT.print(
            f"against the teams' own libraries on {len(test)} test rows: largest difference {error:.1e}; accuracy {right:.1%}; one record {slow / fast:.1f}x faster fused"
        )

        OUT.rule("a mismatch is found when the pipeline is built")
        try:
            mb.Pipeline(
                "wrong",
                {"forest": loaded["forest"], "network": loaded["network"]},
                {"forest.features": "features", "forest.categorical": "categorical", "network.transformed": "forest.probabilities"},
            )
        except mb.MlbridgeError as exc:
            OUT.print(f"[red]{type(exc).__name__}[/]: {exc.message}", highlight=False)

        OUT.rule("the same from the command line")
        fused.save(folder / "credit.mlb", native=False)
        test.to_csv(folder / "customers.csv", index_label="id")
        command = [
            sys.executable,
            "-m",
            "mlbridge.cli",
            "predict",
            str(folder / "credit.mlb"),
            str(folder / "customers.csv"),
            "-o",
            str(folder / "scores.csv"),
            "--keep",
            "id",
        ]
        subprocess.run(command, check=True)
        OUT.print("$ mlbridge predict credit.mlb customers.csv -o scores.csv --keep id")
        OUT.print("\n".join((folder / "scores.csv").read_text().splitlines()[:4]))
        for model in (fused, pipeline, blend, *loaded.values()):
            model.close()


def both(path: Path, column: str, rows: pd.DataFrame) -> np.ndarray:
    """Return what a foreign team recorded for these rows: the probabilities of bad and good."""
    good = pd.read_csv(path)[column].to_numpy()[rows.index]
    return np.column_stack([1 - good, good])


def parity_with_r_and_spark(loaded: dict[str, mb.Model]) -> Table:
    """Compare with what R and Spark answered for every row."""
    table = Table("model", "made by", "rows", "largest difference from its own answers")
    rows = pd.concat(teams.read_table()).sort_index()
    for name, path, column in (("logit", "r", "logit"), ("r_forest", "r", "forest"), ("gbt", "spark", "gbt")):
        want = pd.read_csv(teams.HERE / path / "answers.csv")[column].to_numpy()
        got = loaded[name].predict(rows[teams.NUMBERS + teams.CATEGORIES], outputs="probabilities")[:, 1]
        table.add_row(name, loaded[name].route.framework, str(len(rows)), f"{np.abs(got - want).max():.1e}")
    return table


def native_network(network, features: np.ndarray) -> np.ndarray:
    """Ask the network itself."""
    import torch

    with torch.no_grad():
        return network(torch.tensor(features, dtype=torch.float32))["probabilities"].numpy()


if __name__ == "__main__":
    main()
