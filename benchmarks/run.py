"""Run the benchmarks: all of them, or the quick check of the promises.

python benchmarks/run.py                    everything; writes docs/benchmarks
python benchmarks/run.py --check            a few minutes; fails where a promise is broken beyond doubt
python benchmarks/run.py executor/hot_path  only these suites
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # suites import `benchmarks.harness`

from benchmarks import harness  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="room/name, e.g. executor/hot_path")
    parser.add_argument("--check", action="store_true", help="quick: fewer rounds, nothing written but a summary")
    parser.add_argument("--out", type=Path, default=None, help="folder for results (default docs/benchmarks, with --check a temporary one)")
    given = parser.parse_args(arguments)
    sections = []
    for path in _suites(given.suites):
        began = time.perf_counter()
        module = _load(path)
        if hasattr(module, "bench"):
            section = module.bench(given.check)
        else:  # a script that prints its own figures
            name = f"{path.parent.name}_{path.stem}"
            section = harness.Section(name, name, skipped=f"a script of its own: python benchmarks/{path.relative_to(HERE)}")
        sections.append(section)
        state = f"not run: {section.skipped}" if section.skipped else f"{len(section.rows)} rows, {time.perf_counter() - began:.0f} s"
        print(f"{path.parent.name}/{path.stem.removeprefix('bench_')}: {state}", flush=True)
        for bar in section.bars:
            word = "kept" if bar.met else "BROKEN" if bar.broken else "within noise"
            print(f"  {word:12} {bar.ratio:8.2f} ({bar.low:.2f} to {bar.high:.2f}) {bar.sense} {bar.limit:g}  {bar.name}", flush=True)
    out = given.out or (
        Path(tempfile.mkdtemp(prefix="mlbridge-bench-")) if given.check or given.suites else HERE.parent / "docs" / "benchmarks"
    )
    harness.render(sections, out, quick=given.check)
    print(f"written to {out}")
    broken = [b.name for s in sections for b in s.bars if b.broken]
    if broken:
        print("broken: " + "; ".join(broken))
    return 1 if broken else 0


def _suites(names: list[str]) -> list[Path]:
    found = sorted(HERE.glob("*/bench_*.py"))
    if not names:
        return found
    chosen = [p for p in found if f"{p.parent.name}/{p.stem.removeprefix('bench_')}" in names or p.parent.name in names]
    if not chosen:
        known = ", ".join(f"{p.parent.name}/{p.stem.removeprefix('bench_')}" for p in found)
        raise SystemExit(f"no such suite; there are {known}")
    return chosen


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
