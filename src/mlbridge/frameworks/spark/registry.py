"""Which class of Spark is handled by which function, and the table of them in the documentation.

`@stage(...)` registers an emitter; `family` finds it. The families' modules are imported on the first look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from ...errors import ConversionError
from .stage import Stage

if TYPE_CHECKING:
    from .flow import Flow

__all__ = ["Family", "Need", "families", "family", "markdown", "stage"]

_MODULES = ("encoders", "numeric", "expansions", "text", "linear", "bayes", "networks", "forests", "clustering")


@dataclass(frozen=True)
class Need:
    """A column a stage reads: as what, how wide, and whether a missing value there makes Spark raise.

    `kind` is `any` where Spark takes a number or a vector; a raw column is then a number unless something says otherwise.
    """

    column: str
    kind: Literal["number", "vector", "any", "category", "text"] = "number"
    width: int | None = None
    missing: Literal["allow", "refuse"] = "allow"
    labels: tuple[str, ...] = ()
    unknown: Literal["refuse", "keep"] = "refuse"
    together: int | None = None  # `any`: all columns of this stage are this wide together


Reads = Callable[[Stage, Mapping[str, int]], list[Need]]
Makes = Callable[[Stage], list[str]]


@dataclass(frozen=True)
class Family:
    """What is known about one class of stage."""

    name: str
    reads: Reads
    makes: Makes
    emit: Callable[[Flow, Stage], None]
    task: str | None
    note: str
    converts: bool


_FAMILIES: dict[str, Family] = {}


def numbers_in(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    """Every input column is a number."""
    return [Need(c) for c in stage.sources]


def targets_out(stage: Stage) -> list[str]:
    """The output columns."""
    return stage.targets


def stage(
    *names: str, reads: Reads = numbers_in, makes: Makes = targets_out, task: str | None = None, note: str = "", converts: bool = True
) -> Callable[[Callable[[Flow, Stage], None]], Callable[[Flow, Stage], None]]:
    """Register the emitter of some classes.

    Parameters
    ----------
    *names : str
        Class names, without package.
    reads : callable
        (stage, known widths of later columns) -> list of Need.
    makes : callable
        stage -> names of the columns it makes.
    task : {'classifier', 'regressor', 'clusterer'}, optional
        For predictors.
    note : str
        For the documentation's table.
    converts : bool
        False for stages that are refused by name.
    """

    def keep(emit: Callable[[Flow, Stage], None]) -> Callable[[Flow, Stage], None]:
        for name in names:
            _FAMILIES[name] = Family(name, reads, makes, emit, task, note, converts)
        return emit

    return keep


def families() -> Mapping[str, Family]:
    """Return every family by class name."""
    for module in _MODULES:
        import_module(f".{module}", __package__)
    return _FAMILIES


def family(stage: Stage) -> Family:
    """Return the family of a stage.

    Raises
    ------
    ConversionError
        If the class is not known: not even its columns are then.
    """
    found = families().get(stage.name)
    if found is None:
        raise ConversionError(
            f"{stage.where}: {stage.name} is not a stage mlbridge knows",
            hint="take the stage out of the pipeline, or load it with via='native' and signature=",
        )
    return found


def markdown() -> str:
    """Return the documentation's table of stages."""
    lines = ["| Spark class | ONNX | answers | notes |", "|---|---|---|---|"]
    answers = {"classifier": "`label` and scores", "regressor": "`prediction`", "clusterer": "`cluster`", None: "`transformed`"}
    order = sorted(families().values(), key=lambda f: (_MODULES.index(f.emit.__module__.rsplit(".", 1)[-1]), f.name))
    for f in order:
        lines.append(f"| {f.name} | {'yes' if f.converts else 'refused'} | {answers[f.task]} | {f.note} |")
    return "\n".join(lines) + "\n"
