"""What the documentation says is true: examples run, and every public parameter is described."""

import doctest
import gc
import importlib
import inspect
import re
from pathlib import Path

import numpydoc.validate
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "mlbridge"
WITH_EXAMPLES = sorted(
    ".".join(p.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for p in PACKAGE.rglob("*.py")
    if ">>> " in p.read_text("utf-8")
)
PROMISED = re.compile(r"PR0[1-9]|PR10|RT0[1-5]|SS0[1-6]|GL08|GL03")  # parameters, answers, a summary line; not style


def _public():
    for module in ("mlbridge", "mlbridge.interfaces", "mlbridge.executor"):
        for name in importlib.import_module(module).__all__:
            what = getattr(importlib.import_module(module), name)
            if not (inspect.isclass(what) or inspect.isfunction(what)) or not what.__module__.startswith("mlbridge"):
                continue
            if not getattr(what, "_is_protocol", False):  # a Protocol has no __init__ of its own to describe
                yield f"{module}.{name}"
            if inspect.isclass(what):
                for member, value in vars(what).items():
                    if not member.startswith("_") and isinstance(value, (staticmethod, classmethod, property, type(_public))):
                        yield f"{module}.{name}.{member}"


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_docstring_examples_run(module):
    done = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert done.failed == 0
    assert done.attempted > 0


@pytest.mark.parametrize("name", list(_public()))
def test_public_docstrings_say_what_goes_in_and_comes_out(name):
    wrong = [f"{code}: {text}" for code, text in numpydoc.validate.validate(name)["errors"] if PROMISED.fullmatch(code)]
    assert not wrong


@pytest.mark.filterwarnings("ignore:unclosed <Model:ResourceWarning")  # as in a script, what has no name is left to the end
def test_readme_example_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    for value in names.values():
        if hasattr(value, "close") and hasattr(value, "predict"):
            value.close()
    names.clear()
    gc.collect()
