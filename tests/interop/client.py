"""Python's client of the matrix: `mb.load("grpc://…")`. See docs/interop.md."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import vectors

import mlbridge as mb


def ask(case: dict, model: mb.Model) -> dict[str, Any]:
    """Ask through `predict`, and name each answer's values."""
    x = {t["name"]: vectors.values(t) for t in case["feeds"]}
    if "cancel_after_s" in case:
        asyncio.run(_cancelled(model, x, case["cancel_after_s"]))
    answers = model.predict(x, timeout_s=case.get("timeout_s"))
    out = []
    for spec in model.signature.outputs:
        out.append(vectors.written(spec.name, "level" if spec.categorical else spec.dtype, answers[spec.name]))
    return {"case": case["name"], "code": "OK", "answers": out}


async def _cancelled(model: mb.Model, x: dict, after_s: float) -> None:
    task = asyncio.create_task(model.predict_async(x))
    await asyncio.sleep(after_s)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        raise mb.errors.CancelledError("the task was cancelled") from None


def main() -> None:
    """Print a line a case."""
    given = vectors.asked(__doc__)
    cases = vectors.read(given.vectors)["cases"]
    options = {"token": given.token, "root_certificates": given.authority}
    scheme = "grpcs" if given.authority else "grpc"
    for name in given.case:
        case = cases[name]
        if case.get("encoding") == "typed":
            print(json.dumps({"case": name, "skipped": "this client always sends raw"}), flush=True)
            continue
        try:
            with mb.load(f"{scheme}://{given.target}/{case['model']}", options={"grpc": options}) as model:
                line = ask(case, model)
        except mb.MlbridgeError as exc:
            line = {"case": name, "code": exc.code.name, "class": type(exc).__name__, "message": str(exc)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
