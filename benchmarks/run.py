"""Run the benchmarks: all of them, or the quick check of the promises.

python benchmarks/run.py                    everything; writes docs/benchmarks
python benchmarks/run.py --check            a few minutes; fails where a promise is broken beyond doubt
python benchmarks/run.py executor/hot_path  only these suites
python benchmarks/run.py executor --out docs/benchmarks  these anew, the others as they were measured before
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # suites import `benchmarks.harness`

from benchmarks import harness  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where a promise is broken or a suite failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="room/name, e.g. executor/hot_path")
    parser.add_argument("--check", action="store_true", help="quick: fewer rounds, nothing written but a summary")
    parser.add_argument("--out", type=Path, default=None, help="folder for results (default docs/benchmarks, with --check a temporary one)")
    given = parser.parse_args(arguments)
    sections: list[harness.Section] = []
    failed: list[str] = []
    for path in _suites(given.suites):
        began = time.perf_counter()
        try:
            section = _load(path).bench(given.check)
            if given.check and any(b.broken for b in section.bars):  # once more: a neighbour's load passes, a slow path stays
                section = _load(path).bench(given.check)
        except Exception as exc:  # noqa: BLE001 - one suite that fails must not lose what the others measured
            traceback.print_exc()
            section = harness.Section(path.stem.removeprefix("bench_"), _name(path), skipped=f"it failed: {type(exc).__name__}: {exc}")
            failed.append(_name(path))
        sections.append(section)
        state = f"not run: {section.skipped}" if section.skipped else f"{len(section.rows)} rows, {time.perf_counter() - began:.0f} s"
        print(f"{_name(path)}: {state}", flush=True)
        for bar in section.bars:
            word = "kept" if bar.met else "BROKEN" if bar.broken else "within noise"
            print(f"  {word:12} {bar.ratio:8.2f} ({bar.low:.2f} to {bar.high:.2f}) {bar.sense} {bar.limit:g}  {bar.name}", flush=True)
    out = given.out or (
        Path(tempfile.mkdtemp(prefix="mlbridge-bench-")) if given.check or given.suites else HERE.parent / "docs" / "benchmarks"
    )
    harness.render(harness.among_earlier(sections, out) if given.suites else sections, out, quick=given.check)
    print(f"written to {out}")
    broken = [b.name for s in sections for b in s.bars if b.broken]
    for word, names in (("broken", broken), ("failed", failed)):
        if names:
            print(f"{word}: {'; '.join(names)}")
    return 1 if broken or failed else 0


def _name(path: Path) -> str:
    """Return room/name; the name alone for what the package keeps in a file of its own."""
    room = "" if path.parent == HERE else f"{path.parent.name}/"
    return room + path.stem.removeprefix("bench_")


def _suites(names: list[str]) -> list[Path]:
    # those first that fork: a process with threads of its own must not
    found = [*sorted(HERE.glob("bench_*.py")), *sorted(HERE.glob("*/bench_*.py"))]
    if not names:
        return found
    chosen = [p for p in found if _name(p) in names or p.parent.name in names]
    if not chosen:
        raise SystemExit(f"no such suite; there are {', '.join(map(_name, found))}")
    return chosen


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
