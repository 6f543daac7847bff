"""The runtime `onnx`: file checks, signature from the graph, then the executor's session.

Rooms: `checks` (what a file says) · `sizes` (what it would allocate) · `graph_signature` (what goes in and out).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ...artifact import Artifact, Implementation, open_artifact
from ...errors import ArtifactError, MissingDependencyError, SignatureError, UnsupportedError
from ...executor import cache as kept
from ...executor.devices import facts as machine_facts
from ...executor.plans import Demand, Plan, Traits, choose
from ...executor.session import OnnxSession
from ...executor.starting import start
from ...interfaces import Session
from ...signature import Signature
from .checks import LOOP_TIMEOUT_S, MAX_NODES, MAX_TENSOR_BYTES, Limits, check_proto, copy_side_files, loops, parse, traits_of
from .graph_signature import claimed_rows, disagreements, read_signature
from .sizes import check_sizes, with_shapes

__all__ = ["OnnxRuntime", "claimed_rows"]

_CHECKS_VERSION = 1  # raised with every change to the checks: what passed older ones is checked again
_KEEP_BYTES = 64 << 10  # smaller files are checked faster than a kept answer is read


class OnnxRuntime:
    """Runs ONNX models with onnxruntime."""

    name: ClassVar[str] = "onnx"
    claimed_rows = staticmethod(claimed_rows)  # a foreign graph's promise, for the glue to check
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    options: ClassVar[frozenset[str]] = frozenset(
        {"tuned", "threads", "spin_us", "provider_options", "max_nodes", "max_tensor_bytes", "timeout_s", "domains"}
        | {"chunks", "route", "bucket", "objective", "cache", "warm_up"}
    )

    def accepts(self, model: object, /) -> bool:
        """Whether this is an `onnx.ModelProto`."""
        return type(model).__name__ == "ModelProto" and type(model).__module__.startswith("onnx")

    def wrap(
        self, model: Any, /, *, signature: Signature | None = None, device: str = "auto", provider: str | None = None, **options: Any
    ) -> Session:
        """Make a session of an `onnx.ModelProto`; as `load` of its bytes."""
        return self.load(open_artifact(model.SerializeToString()), signature=signature, device=device, provider=provider, **options)

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        provider: str | None = None,
        way: str | None = None,
        threads: int | None = None,
        spin_us: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
        max_nodes: int = MAX_NODES,
        max_tensor_bytes: int = MAX_TENSOR_BYTES,
        timeout_s: float | None = None,
        domains: Iterable[str] = (),
        chunks: int | None = None,
        route: str | None = None,
        bucket: int | None = None,
        objective: Literal["latency", "throughput", "idle"] | None = None,
        cache: bool = True,
        warm_up: Iterable[int] = (),
        tuned: Mapping[str, Any] | None = None,
    ) -> Session:
        """Check a file, and make a session of it.

        Parameters
        ----------
        source : Artifact or str
            An artifact of format `onnx`, or a path.
        signature : Signature, optional
            Replaces what the graph says; must agree with it.
        device : str, default='auto'
            `auto`, `cpu`, `cuda`, `cuda:1`. A named device is a demand.
        provider : str, optional
            onnxruntime's exact string; a demand.
        threads : int, optional
            Threads inside one operator.
        spin_us : int, optional
            Microseconds idle threads look for more work before they sleep; 0 is never.
        provider_options : dict, optional
            For the demanded provider.
        max_nodes, max_tensor_bytes : int
            Limits on the file; raise them in words where that is right.
        timeout_s : float, optional
            Ends calls that bring no deadline. Default 60 for graphs with Loop or Scan, else none.
        domains : iterable of str
            Custom operator domains to let through.
        chunks : int, optional
            Split large batches over at most this many cores.
        route : {'auto', 'bound', 'inner'}, optional
            Prebound buffers, onnxruntime's inner run, or by size.
        bucket : int, optional
            Pad batches of independent rows to a multiple of this.
        objective : {'latency', 'throughput', 'idle'}, optional
            What the plan favours where nothing was measured.
        cache : bool, default=True
            Whether optimised models, passed checks and tuned plans are kept under `$MLBRIDGE_CACHE`.
        warm_up : iterable of int
            Batch sizes to run while loading, so that first calls find memory grown and buffers bound.
        tuned : dict, optional
            The record of a tuning, as `save` writes it into a package; ignored on any other machine.

        Raises
        ------
        ArtifactError
            If the file is malformed, over a limit, or reaches outside itself.
        UnavailableError
            If a demanded device or provider is absent.
        SignatureError
            If the signature contradicts the graph.
        """
        _needs_onnxruntime()
        artifact = source if isinstance(source, Artifact) else open_artifact(source)
        if artifact.format != "onnx":
            raise ArtifactError(f"{artifact.label}: not an ONNX model but {artifact.format!r}")
        limits = Limits(max_nodes, max_tensor_bytes, frozenset(domains))
        data = artifact.read_bytes()
        facts = _examine(artifact, data, limits, signature)
        signature = facts.signature
        demand = Demand(device, provider, dict(provider_options or {}), objective or "latency")
        traits = replace(facts.traits, batched=signature.batched)
        given = {"threads": threads, "spin_us": spin_us, "chunks": chunks, "route": route, "bucket": bucket}
        plans = [_overridden(p, given) for p in choose(machine_facts(), traits, demand)]
        if timeout_s is None and facts.loops:
            timeout_s = LOOP_TIMEOUT_S
        model: bytes | Path = artifact.path if facts.side_files else data
        digest = artifact.sha256 if cache and not facts.side_files else None
        free = provider is None and all(v is None for v in given.values())
        session = start(
            model, plans, signature, traits, owner=artifact, sha256=digest, default_timeout_s=timeout_s, tuned=free, packaged=tuned
        )
        session.warm_up(tuple(warm_up))
        return session

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Write the session's model under `folder` as `model.onnx`, side files beside it."""
        if not isinstance(session, OnnxSession):
            raise UnsupportedError(f"a {type(session).__name__} is not a session of the onnx runtime", runtime="onnx")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        model = session.engine.model
        if isinstance(model, bytes):
            (folder / "model.onnx").write_bytes(model)
        else:
            for file in model.parent.iterdir():
                shutil.copyfile(file, folder / ("model.onnx" if file.name == model.name else file.name))
        options = {} if session.measured is None else {"tuned": session.measured}
        return Implementation(runtime="onnx", path="model.onnx", format="onnx", options=options, requires={"onnxruntime": _version()})


@dataclass(frozen=True, slots=True)
class _Findings:
    """What the checks of one file found."""

    signature: Signature
    traits: Traits
    loops: bool
    side_files: bool


def _examine(artifact: Artifact, data: bytes, limits: Limits, given: Signature | None) -> _Findings:
    """Check a file, or recall that these very bytes passed these very checks on this machine."""
    wanted = None if given is None else given.to_json()
    key = kept.key_of(
        "checked", _CHECKS_VERSION, artifact.sha256, limits.max_nodes, limits.max_tensor_bytes, sorted(limits.domains), wanted
    )
    if len(data) >= _KEEP_BYTES:
        known = kept.read_json("checked", key)
        if known is not None:
            return _Findings(Signature.from_dict(known["signature"]), Traits.from_dict(known["traits"]), known["loops"], False)
    proto = parse(data, artifact.label)
    check_proto(proto, artifact.label, limits)
    shaped = with_shapes(proto, artifact.label)
    check_sizes(shaped, artifact.label, limits)
    side_files = copy_side_files(proto, artifact.origin, artifact.path, artifact.label, limits)
    if given is not None:
        problems = disagreements(given, shaped)
        if problems:
            raise SignatureError(f"{artifact.label}: the signature contradicts the graph: {'; '.join(problems)}", problems=problems)
    findings = _Findings(given or read_signature(shaped), traits_of(proto), loops(proto, artifact.label), bool(side_files))
    if len(data) >= _KEEP_BYTES and not side_files:
        value = {"signature": findings.signature.to_dict(), "traits": findings.traits.to_dict(), "loops": findings.loops}
        kept.write_json("checked", key, value)
    return findings


def _overridden(plan: Plan, given: Mapping[str, Any]) -> Plan:
    changes = {k: v for k, v in given.items() if v is not None}
    return replace(plan, **changes, why="as the options say") if changes else plan


def _needs_onnxruntime() -> None:
    try:
        import onnxruntime  # noqa: F401

        import onnx  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError(
            f"{exc.name or 'onnxruntime'} is not installed", hint="pip install 'mlbridge[onnx]'", runtime="onnx"
        ) from exc


def _version() -> str:
    import onnxruntime

    return onnxruntime.__version__
