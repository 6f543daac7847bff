"""Engine: makes onnxruntime's sessions by a plan, and tells where their nodes really run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, UnavailableError
from .plans import CPU, Plan

__all__ = ["Engine"]

# Dropping only these is not worth a second session: they read and write a few values.
_CHEAP = frozenset(
    [
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Gather",
        "Slice",
        "Concat",
        "Shape",
        "Constant",
        "Not",
        "And",
        "Or",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "Where",
        "ArgMax",
        "ZipMap",
        "LabelEncoder",
        "ArrayFeatureExtractor",
        "Transpose",
    ]
)


class Engine:
    """Makes native sessions of one model.

    Parameters
    ----------
    model : bytes or Path
        The checked model; a path where it has side files.
    plan : Plan
        Where and how it runs.
    owner : object, optional
        Kept alive, and closed with the engine: what owns the private copy.
    """

    def __init__(self, model: bytes | Path, plan: Plan, *, owner: Any = None) -> None:
        self.model = model
        self.plan = plan
        self.placement: Mapping[str, float] = {}
        self.device = plan.device
        self._owner = owner

    def native(self) -> Any:
        """Make the session and read its placement; UnavailableError where a demand is not met."""
        session = _create(self.model, self.plan)
        self.placement = _placement(session)
        share = self.placement.get(self.plan.provider, 0.0)
        if self.placement and share == 0.0 and self.plan.provider != CPU:
            if self.plan.demanded:
                raise UnavailableError(
                    f"{self.plan.provider} is there but runs none of this model's nodes",
                    hint="its operators are not supported there; use another provider or device='cpu'",
                    runtime="onnx",
                )
            self.device = "cpu"
        return session

    def with_plan(self, plan: Plan) -> Engine:
        """Return an engine of the same model by another plan."""
        return Engine(self.model, plan, owner=self._owner)

    def pruned(self, names: Sequence[str]) -> Any:
        """Return a session that computes these outputs only, or None where that saves nothing worth it."""
        smaller = _prune(self.model, names)
        return None if smaller is None else _create(smaller, self.plan)

    def close(self) -> None:
        """Let go of the private copy."""
        self._owner = None


def _create(model: bytes | Path, plan: Plan) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if plan.spinning else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = [(plan.provider, {k: str(v) for k, v in plan.provider_options.items()})]
    if plan.provider != CPU:
        providers.append((CPU, {}))
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=providers,
            enable_fallback=False,  # onnxruntime retries on CPU after a provider error unless told not to
        )
    except Exception as exc:  # its exceptions have no class of their own in common
        raise ArtifactError(f"onnxruntime cannot load the model: {str(exc).strip().splitlines()[0][:500]}", runtime="onnx") from exc
    if plan.provider not in session.get_providers():
        raise UnavailableError(
            f"{plan.provider} could not start",
            hint="its libraries or driver are missing; `mlbridge doctor` lists what is there",
            runtime="onnx",
        )
    return session._sess


def _placement(native: Any) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for subgraph in native.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    total = sum(counts.values())
    return {name: n / total for name, n in counts.most_common()} if total else {}


def _prune(model: bytes | Path, names: Sequence[str]) -> bytes | Path | None:
    import onnx

    if not isinstance(model, bytes):
        return None  # weights live in side files; a second copy of them costs more than it saves
    proto = onnx.load_model_from_string(model)
    producers = {name: i for i, node in enumerate(proto.graph.node) for name in node.output if name}
    needed: set[int] = set()
    stack = list(names)
    while stack:
        index = producers.get(stack.pop())
        if index is not None and index not in needed:
            needed.add(index)
            stack.extend(_reads(proto.graph.node[index]))
    dropped = [n for i, n in enumerate(proto.graph.node) if i not in needed]
    if all(n.op_type in _CHEAP for n in dropped):
        return None
    keep = [n for i, n in enumerate(proto.graph.node) if i in needed]
    outputs = [o for o in proto.graph.output if o.name in set(names)]
    del proto.graph.node[:]
    del proto.graph.output[:]
    proto.graph.node.extend(keep)
    proto.graph.output.extend(outputs)
    read = {name for node in keep for name in _reads(node)} | set(names)
    weights = [t for t in proto.graph.initializer if t.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
    return proto.SerializeToString()


def _reads(node: Any) -> list[str]:
    """Return every name a node reads, those of its subgraphs included."""
    names = [n for n in node.input if n]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            for inner in graph.node:
                names.extend(_reads(inner))
            names.extend(o.name for o in graph.output)
    return names
