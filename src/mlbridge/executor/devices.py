"""Facts about this machine: cores, memory, processor features, GPUs, onnxruntime's providers and plug-ins.

Reads only; chooses nothing. What is missing comes with what would enable it. Called by plans' callers and `doctor`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Device", "Facts", "cores", "cpu_flags", "facts", "list_devices"]

_NVIDIA_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


@dataclass(frozen=True, slots=True)
class Device:
    """One piece of hardware, or one provider's device, present or half-present.

    Attributes
    ----------
    name : str
        `cpu`, `cuda:0`, or a plug-in's `npu:0`.
    kind : str
        `cpu`, `cuda`, `gpu`, `npu`.
    description : str
        The maker's name.
    memory_bytes : int or None
        Free memory, where known.
    providers : tuple of str
        Providers of this onnxruntime that can use it.
    usable : bool
        Whether a session can run there now.
    remedy : str
        What would make it usable; empty where it is.
    """

    name: str
    kind: str
    description: str = ""
    memory_bytes: int | None = None
    providers: tuple[str, ...] = ()
    usable: bool = True
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the choice of a plan rests on.

    Attributes
    ----------
    cores : int
        Cores this process may use, container limits included.
    memory_bytes : int or None
        Memory free now.
    flags : tuple of str
        Processor features that kernels care about.
    caches : dict of str to int
        Cache level to bytes.
    onnxruntime : str
        Version; empty where it is not installed.
    providers : tuple of str
        Built in.
    plugins : tuple of str
        Providers that registered plug-in devices bring.
    devices : tuple of Device
        The processor first.
    """

    cores: int = 1
    memory_bytes: int | None = None
    flags: tuple[str, ...] = ()
    caches: dict[str, int] = field(default_factory=dict)
    onnxruntime: str = ""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    plugins: tuple[str, ...] = ()
    devices: tuple[Device, ...] = (Device("cpu", "cpu", providers=("CPUExecutionProvider",)),)


def facts() -> Facts:
    """Read the machine; takes milliseconds, and a second where a GPU's tool must be asked."""
    version, providers, plugins = _onnxruntime()
    found = [_cpu(providers), *_nvidia(providers), *_plugin_devices()]
    return Facts(cores(), _free_memory(), cpu_flags(), _caches(), version, providers, plugins, tuple(found))


def list_devices() -> list[Device]:
    """List what models could run on here, and what would enable the rest.

    Returns
    -------
    list of Device
        The CPU first; a GPU that is there but unusable says what it lacks.

    Examples
    --------
    >>> list_devices()[0].name
    'cpu'
    """
    return list(facts().devices)


def cores() -> int:
    """Count the cores this process may use."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return count
    return count


_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_tile",
    "asimd",
    "asimddp",
    "sve",
    "i8mm",
    "bf16",
)


@functools.cache
def cpu_flags() -> tuple[str, ...]:
    """Return the processor features that onnxruntime's kernels choose by."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            line = next((x for x in f if x.startswith(("flags", "Features"))), "")
    except OSError:
        return (platform.machine(),)
    have = set(line.partition(":")[2].split())
    return tuple(f for f in _FLAGS if f in have)


def _cpu(providers: tuple[str, ...]) -> Device:
    names = ("CPUExecutionProvider", "OpenVINOExecutionProvider", "DnnlExecutionProvider", "XnnpackExecutionProvider")
    mine = tuple(p for p in names if p in providers)
    remedy = "" if mine else "pip install 'mlbridge[onnx]'"
    return Device("cpu", "cpu", _cpu_name(), _free_memory(), mine, bool(mine), remedy)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            name = next((x.partition(":")[2].strip() for x in f if x.startswith("model name")), "")
    except OSError:
        name = platform.processor()
    return name or platform.machine()


def _free_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            free = next((int(x.split()[1]) * 1024 for x in f if x.startswith("MemAvailable")), None)
    except (OSError, ValueError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
        return limit - used if free is None else min(free, limit - used)
    except (OSError, ValueError):
        return free


def _caches() -> dict[str, int]:
    out: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / n).read_text("ascii").strip() for n in ("level", "type", "size"))
            out[f"L{level}{'i' if kind == 'Instruction' else 'd' if kind == 'Data' else ''}"] = int(size.rstrip("K")) * 1024
        except (OSError, ValueError):
            continue
    return out


def _onnxruntime() -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    try:
        import onnxruntime
    except ImportError:
        return "", (), ()
    built_in = tuple(onnxruntime.get_available_providers())
    plugins = dict.fromkeys(d.ep_name for d in onnxruntime.get_ep_devices() if d.ep_name not in built_in)
    return onnxruntime.__version__, built_in, tuple(plugins)


def _plugin_devices() -> list[Device]:
    try:
        import onnxruntime
    except ImportError:
        return []
    built_in, out = set(onnxruntime.get_available_providers()), []
    seen: dict[str, int] = {}
    for d in onnxruntime.get_ep_devices():
        if d.ep_name in built_in:
            continue  # the processor, and CUDA where it is built in, are listed already
        kind = str(d.device.type).rpartition(".")[2].lower()
        index = seen[kind] = seen.get(kind, -1) + 1
        out.append(Device(f"{kind}:{index}", kind, f"{d.ep_vendor} {d.device.vendor}".strip(), None, (d.ep_name,)))
    return out


# ---------------------------------------------------------------- NVIDIA: driver, hardware, provider, each may be missing


def _nvidia(providers: tuple[str, ...]) -> list[Device]:
    mine = tuple(p for p in _NVIDIA_PROVIDERS if p in providers)
    driver = _driver()
    cards = _cards() if driver else []
    if cards and mine:
        return [Device(f"cuda:{i}", "cuda", name, free, mine) for i, (name, free) in enumerate(cards)]
    if cards:
        remedy = "the driver is there; install the provider: pip uninstall onnxruntime; pip install 'mlbridge[onnx-gpu]'"
        return [Device(f"cuda:{i}", "cuda", name, free, (), False, remedy) for i, (name, free) in enumerate(cards)]
    if mine:
        remedy = (
            "the driver finds no GPU"
            if driver
            else "the provider is there, the NVIDIA driver is not: install it, or give the container the GPU"
        )
        return [Device("cuda", "cuda", "", None, mine, False, remedy)]
    if driver or _hardware():
        why = "a GPU is there, its driver is not: install NVIDIA's driver" if not driver else "the driver finds no GPU"
        return [Device("cuda", "cuda", "", None, (), False, f"{why}; then pip install 'mlbridge[onnx-gpu]'")]
    return []


def _driver() -> bool:
    name = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _hardware() -> bool:
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        try:
            if vendor.read_text("ascii").strip() == "0x10de" and (vendor.parent / "class").read_text("ascii").startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def _cards() -> list[tuple[str, int | None]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return _cards_by_driver()
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return _cards_by_driver()
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line] if done.returncode == 0 else []
    return [(name.strip(), int(free) << 20 if free.strip().isdigit() else None) for name, _, free in rows]


def _cards_by_driver() -> list[tuple[str, int | None]]:
    count = ctypes.c_int(0)
    try:
        cuda: Any = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return []
    except (OSError, AttributeError):
        return []
    return [("NVIDIA GPU", None)] * count.value
