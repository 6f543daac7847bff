"""The runtime `onnx`: file checks, signature from the graph, then the executor's session.

Rooms: `checks` (what a file says) · `sizes` (what it would allocate) · `graph_signature` (what goes in and out).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...artifact import Artifact, Implementation, open_artifact
from ...errors import ArtifactError, MissingDependencyError, SignatureError, UnsupportedError
from ...executor.engine import Engine
from ...executor.plans import Plan
from ...executor.session import OnnxSession
from ...interfaces import Session
from ...signature import Signature
from .checks import LOOP_TIMEOUT_S, MAX_NODES, MAX_TENSOR_BYTES, Limits, check_proto, copy_side_files, loops, parse
from .graph_signature import claimed_rows, disagreements, read_signature
from .sizes import check_sizes, with_shapes

__all__ = ["OnnxRuntime", "claimed_rows"]


class OnnxRuntime:
    """Runs ONNX models with onnxruntime."""

    name: ClassVar[str] = "onnx"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    options: ClassVar[frozenset[str]] = frozenset(
        {"threads", "spinning", "provider_options", "max_nodes", "max_tensor_bytes", "timeout_s", "domains", "chunks"}
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
        spinning: bool | None = None,
        provider_options: Mapping[str, Any] | None = None,
        max_nodes: int = MAX_NODES,
        max_tensor_bytes: int = MAX_TENSOR_BYTES,
        timeout_s: float | None = None,
        domains: Iterable[str] = (),
        chunks: int | None = None,
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
        spinning : bool, optional
            Whether idle threads spin.
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
        proto = parse(data, artifact.label)
        check_proto(proto, artifact.label, limits)
        shaped = with_shapes(proto, artifact.label)
        check_sizes(shaped, artifact.label, limits)
        side_files = copy_side_files(proto, artifact.origin, artifact.path, artifact.label, limits)
        signature = _signature(shaped, signature, artifact.label)
        plan = Plan(threads=threads or 0, spinning=True if spinning is None else spinning, chunks=chunks or 1)
        engine = Engine(artifact.path if side_files else data, plan, owner=artifact)
        if timeout_s is None and loops(proto, artifact.label):
            timeout_s = LOOP_TIMEOUT_S
        return OnnxSession(engine, signature, default_timeout_s=timeout_s)

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
        return Implementation(runtime="onnx", path="model.onnx", format="onnx", requires={"onnxruntime": _version()})


def _signature(shaped: Any, given: Signature | None, label: str) -> Signature:
    if given is None:
        return read_signature(shaped)
    problems = disagreements(given, shaped)
    if problems:
        raise SignatureError(f"{label}: the signature contradicts the graph: {'; '.join(problems)}", problems=problems)
    return given


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
