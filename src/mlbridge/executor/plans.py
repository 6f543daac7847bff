"""Plans: where and how an ONNX session runs, chosen from facts, traits and demands without touching the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import InputError, UnavailableError
from .devices import Device, Facts

__all__ = ["CPU", "Demand", "Plan", "Traits", "candidates", "choose", "remedies"]

CPU = "CPUExecutionProvider"
Route = Literal["auto", "bound", "inner"]
_BUCKET = 8  # rows kernels take at once; batches of other sizes may be cheaper padded up to it
_HEAVY_WEIGHTS = 1 << 20  # elements of dense weights; from there one row is worth several threads
_SPIN_US = 200  # bridges the gaps inside one call of a forest or a small network (100 left a tenth of it waiting in some sessions), and costs a tenth of a core at 500 calls a second

# What each provider onnxruntime names runs on, and what installs it.
_PROVIDERS: Mapping[str, tuple[str, str]] = {
    "CUDAExecutionProvider": ("cuda", "pip uninstall onnxruntime; pip install 'mlbridge[onnx-gpu]'"),
    "TensorrtExecutionProvider": ("cuda", "pip install 'mlbridge[onnx-gpu]' and NVIDIA TensorRT"),
    "NvTensorRTRTXExecutionProvider": ("cuda", "register NVIDIA's TensorRT RTX plug-in"),
    "MIGraphXExecutionProvider": ("rocm", "an onnxruntime built for AMD's MIGraphX"),
    "OpenVINOExecutionProvider": ("cpu", "pip uninstall onnxruntime; pip install onnxruntime-openvino"),
    "DnnlExecutionProvider": ("cpu", "an onnxruntime built with oneDNN"),
    "VitisAIExecutionProvider": ("npu", "AMD's Vitis AI build of onnxruntime"),
    "QNNExecutionProvider": ("npu", "pip install onnxruntime-qnn, on a Qualcomm device"),
    "NnapiExecutionProvider": ("npu", "an onnxruntime built for Android"),
    "VSINPUExecutionProvider": ("npu", "an onnxruntime built for VeriSilicon"),
    "JsExecutionProvider": ("web", "onnxruntime-web; it does not run in Python"),
    "CoreMLExecutionProvider": ("npu", "onnxruntime on macOS"),
    "DmlExecutionProvider": ("gpu", "pip install onnxruntime-directml, on Windows"),
    "RknpuExecutionProvider": ("npu", "an onnxruntime built for Rockchip"),
    "WebNNExecutionProvider": ("web", "onnxruntime-web; it does not run in Python"),
    "WebGpuExecutionProvider": ("gpu", "register the WebGPU plug-in, or an onnxruntime built with it"),
    "XnnpackExecutionProvider": ("cpu", "an onnxruntime built with XNNPACK"),
    "CANNExecutionProvider": ("npu", "pip install onnxruntime-cann, with Huawei's CANN"),
    "AzureExecutionProvider": ("remote", "an onnxruntime built with Azure, and a model that calls it"),
    CPU: ("cpu", "pip install 'mlbridge[onnx]'"),
}


def remedies() -> dict[str, str]:
    """Return what would bring each provider onnxruntime names, by provider."""
    return {name: remedy for name, (_, remedy) in _PROVIDERS.items()}


# `auto` takes only providers that keep numbers to float32's own accuracy and start in seconds.
_AUTO = ("CUDAExecutionProvider",)


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
    spin_us : int, optional
        Microseconds idle threads look for more work before they sleep: a quicker hand-over, a busy core meanwhile. 0 is
        never; None is onnxruntime's own choice, tens of milliseconds.
    route : {'auto', 'bound', 'inner'}
        Prebound buffers a shape, onnxruntime's inner run, or whichever the size favours.
    chunks : int
        Split large batches of independent rows over as many cores; 1 never splits.
    bucket : int
        Pad batches of independent rows to a multiple of this; 1 never pads.
    demanded : bool
        Whether the caller named the device or the provider.
    why : str
        One clause: what decided.
    """

    provider: str = CPU
    device: str = "cpu"
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0
    spin_us: int | None = None
    route: Route = "auto"
    chunks: int = 1
    bucket: int = 1
    demanded: bool = False
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        names = ("provider", "device", "threads", "spin_us", "route", "chunks", "bucket", "demanded", "why")
        return {n: getattr(self, n) for n in names} | {"provider_options": dict(self.provider_options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Read the JSON form."""
        return cls(**data)

    def __str__(self) -> str:
        threads = f"{self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"
        parts = [self.provider.removesuffix("ExecutionProvider"), threads, _spin_text(self.spin_us), self.route]
        parts += [f"split {self.chunks}" if self.chunks > 1 else "", f"bucket {self.bucket}" if self.bucket > 1 else ""]
        return " · ".join(p for p in parts if p)


def _spin_text(spin_us: int | None) -> str:
    return "spinning" if spin_us is None else f"spinning {spin_us} us" if spin_us else ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What of a model the choice rests on.

    Parameters
    ----------
    operators : set of str
        As `domain:Name`, the domain left out where it is ONNX's own.
    nodes : int
        In the file.
    weights : int
        Elements of dense constants.
    batched : bool
        Whether rows are independent.
    """

    operators: frozenset[str] = frozenset()
    nodes: int = 0
    weights: int = 0
    batched: bool = False

    @property
    def trees(self) -> bool:
        """Whether it holds a tree ensemble."""
        return any(o.startswith("ai.onnx.ml:TreeEnsemble") for o in self.operators)

    @property
    def heavy(self) -> bool:
        """Whether one row is worth several threads: convolutions, recurrences, large dense layers."""
        return (
            bool(self.operators & {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Attention", "Einsum"}) or self.weights > _HEAVY_WEIGHTS
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"operators": sorted(self.operators), "nodes": self.nodes, "weights": self.weights, "batched": self.batched}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Traits:
        """Read the JSON form."""
        return cls(frozenset(data["operators"]), data["nodes"], data["weights"], data["batched"])


@dataclass(frozen=True, slots=True)
class Demand:
    """What the caller asked for.

    Parameters
    ----------
    device : str
        `auto`, `cpu`, `cuda`, `cuda:1`, or a plug-in device's name.
    provider : str or None
        onnxruntime's exact string.
    provider_options : dict
        For that provider.
    objective : {'latency', 'throughput', 'idle'}
        What to favour; `idle` is low processor use between calls.
    """

    device: str = "auto"
    provider: str | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    objective: Literal["latency", "throughput", "idle"] = "latency"


def choose(facts: Facts, traits: Traits, demand: Demand = Demand()) -> list[Plan]:
    """Order plans from most to least preferred.

    Parameters
    ----------
    facts : Facts
        The machine.
    traits : Traits
        The model.
    demand : Demand
        A named device or provider is a demand, not a wish.

    Returns
    -------
    list of Plan
        Not empty; ends with a processor plan unless something was demanded.

    Raises
    ------
    UnavailableError
        If a demanded device or provider is absent, with the remedy.
    InputError
        If the demand contradicts itself or is not a device.

    Examples
    --------
    >>> print(choose(Facts(cores=4), Traits(batched=True))[0])
    CPU · all threads · spinning 200 us · auto
    """
    if demand.provider is not None:
        return [_demanded_provider(facts, traits, demand)]
    if demand.provider_options:
        raise InputError("provider_options need a provider", hint="name it: provider='CUDAExecutionProvider'")
    if demand.device == "auto":
        plans = [_on(d, p, demand) for p in _AUTO for d in facts.devices if d.usable and p in d.providers and _fits(traits, p)]
        return [*plans, _on_cpu(facts, traits, demand)]
    if demand.device == "cpu":
        if CPU not in facts.providers:
            raise UnavailableError("onnxruntime is not installed", hint=_PROVIDERS[CPU][1], runtime="onnx")
        return [replace(_on_cpu(facts, traits, demand), demanded=True)]
    device = _demanded_device(facts, demand.device)
    return [replace(_on(device, p, demand), demanded=True) for p in device.providers]


def _fits(traits: Traits, provider: str) -> bool:
    # Tables and trees have no kernels there, and copying rows over costs more than small models do.
    return provider not in _AUTO or (traits.heavy and not traits.trees)


def _on(device: Device, provider: str, demand: Demand) -> Plan:
    options = dict(demand.provider_options)
    if device.kind == "cuda" and ":" in device.name:
        options.setdefault("device_id", device.name.partition(":")[2])
    return Plan(provider, device.name, options, route="inner", why=f"{device.name} is there")


def _on_cpu(facts: Facts, traits: Traits, demand: Demand) -> Plan:
    if facts.cores == 1 or demand.objective == "idle":
        return Plan(threads=1, spin_us=0, why="one core" if facts.cores == 1 else "low idle use was asked for")
    if traits.batched and not traits.heavy:
        return Plan(threads=0, spin_us=_SPIN_US, why="large batches are worth several threads, which sleep between calls")
    return Plan(threads=0, why="one call is worth several threads" if traits.heavy else "rows may depend on each other")


def _demanded_device(facts: Facts, name: str) -> Device:
    same = [d for d in facts.devices if d.name == name or (":" not in name and d.kind == name)]
    usable = [d for d in same if d.usable]
    if usable:
        return usable[0]
    if same:
        raise UnavailableError(f"device {name!r} cannot be used: {same[0].remedy}", hint=same[0].remedy, runtime="onnx")
    family = [d.name for d in facts.devices if d.kind == name.partition(":")[0] and d.usable]
    if family:
        raise UnavailableError(
            f"there is no device {name!r}; there are {', '.join(family)}", hint=f"use device={family[0]!r}", runtime="onnx"
        )
    kinds = {k for k, _ in _PROVIDERS.values()}
    if name.partition(":")[0] not in kinds - {"web", "remote"}:
        raise InputError(f"device is {name!r}, expected 'auto', 'cpu', 'cuda', 'cuda:1' or a name of executor.list_devices()")
    remedies = dict.fromkeys(r for k, r in _PROVIDERS.values() if k == name.partition(":")[0])
    raise UnavailableError(f"this machine has no device {name!r} that onnxruntime can use", hint=" or ".join(remedies), runtime="onnx")


def _demanded_provider(facts: Facts, traits: Traits, demand: Demand) -> Plan:
    name = demand.provider or CPU
    if name not in (*facts.providers, *facts.plugins):
        known = _PROVIDERS.get(name)
        have = ", ".join((*facts.providers, *facts.plugins))
        if known is None:
            raise UnavailableError(
                f"this onnxruntime knows no provider {name!r}; it has {have}",
                hint="check the spelling, or register its plug-in library",
                runtime="onnx",
            )
        raise UnavailableError(f"this onnxruntime was built without {name}; it has {have}", hint=known[1], runtime="onnx")
    owners = [d for d in facts.devices if name in d.providers]
    if demand.device != "auto":
        owners = [d for d in owners if d.name == demand.device or d.kind == demand.device]
        if not owners:
            raise InputError(f"{name} does not run on device {demand.device!r}", hint="leave one of device and provider out")
    broken = [d for d in owners if not d.usable]
    if broken and len(broken) == len(owners):
        raise UnavailableError(f"{name} cannot start: {broken[0].remedy}", hint=broken[0].remedy, runtime="onnx")
    if name == CPU:
        return replace(_on_cpu(facts, traits, demand), provider_options=dict(demand.provider_options), demanded=True)
    kind = _PROVIDERS.get(name, ("cpu", ""))[0]
    device = next((d for d in owners if d.usable), Device(kind if kind != "remote" else "cpu", kind, providers=(name,)))
    return replace(_on(device, name, demand), demanded=True, why="the provider was named")


def candidates(facts: Facts, traits: Traits, rows: int, plans: Iterable[Plan] = ()) -> list[Plan]:
    """List the plans worth measuring for batches of this many rows, plain onnxruntime first.

    Parameters
    ----------
    facts, traits
        As for `choose`.
    rows : int
        The sample's rows.
    plans : iterable of Plan
        What `choose` preferred; always among the candidates.
    """
    found = [Plan(route="inner", why="plain onnxruntime"), *plans]
    found += [Plan(threads=1, spin_us=0, route=r) for r in ("bound", "inner")]  # type: ignore[arg-type]
    if facts.cores > 1:
        found += [Plan(route="bound"), Plan(threads=0, spin_us=_SPIN_US, route="bound" if rows < 256 else "inner")]
        if traits.batched and rows >= 2 * facts.cores:
            found.append(Plan(threads=1, spin_us=0, chunks=facts.cores))
    if traits.batched and rows > 1 and rows % _BUCKET:
        found.append(Plan(threads=1, spin_us=0, route="inner", bucket=_BUCKET))
    for name in (*facts.providers, *facts.plugins):
        if name in (CPU, "AzureExecutionProvider", "TensorrtExecutionProvider"):
            continue  # Azure runs nothing here; TensorRT compiles for minutes, so it must be demanded
        for device in facts.devices:
            if device.usable and name in device.providers:
                there = replace(_on(device, name, Demand()), why=f"{name} is there")
                found += [there, replace(there, route="bound")]
                if traits.batched and rows > 1:  # few shapes to compile for: batches up to the next power of two run as one
                    found.append(replace(there, bucket=1 << (rows - 1).bit_length()))
    unique: dict[str, Plan] = {}
    for plan in found:
        unique.setdefault(str((plan.provider, plan.device, plan.threads, plan.spin_us, plan.route, plan.chunks, plan.bucket)), plan)
    return list(unique.values())
