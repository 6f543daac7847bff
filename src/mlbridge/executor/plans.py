"""Plans: where and how an ONNX session runs, chosen from facts and demands without touching the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CPU", "Plan"]

CPU = "CPUExecutionProvider"
Route = Literal["auto", "bound", "inner"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where and how a session runs.

    Parameters
    ----------
    provider : str
        onnxruntime's own string.
    device : str
        The hardware it stands for: `cpu`, `cuda:0`, ….
    provider_options : dict
        Handed to the provider as they are.
    threads : int
        Threads inside one operator; 0 leaves the number to onnxruntime.
    spinning : bool
        Whether idle threads spin: faster hand-over, a busy core between calls.
    route : {'auto', 'bound', 'inner'}
        Prebound buffers a shape, onnxruntime's inner run, or whichever the size favours.
    chunks : int
        Split large batches of independent rows into as many parts, run on as many cores; 1 never splits.
    demanded : bool
        Whether the caller named the device or the provider.
    """

    provider: str = CPU
    device: str = "cpu"
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0
    spinning: bool = True
    route: Route = "auto"
    chunks: int = 1
    demanded: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "provider": self.provider,
            "device": self.device,
            "provider_options": dict(self.provider_options),
            "threads": self.threads,
            "spinning": self.spinning,
            "route": self.route,
            "chunks": self.chunks,
        }
