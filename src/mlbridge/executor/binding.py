"""Binder: buffers bound to an onnxruntime session once a shape, pooled, bounded in number and bytes.

A pooled binding is `(call, io, input buffers, output buffers)`. One binding serves one call at a time; taking it out of
the pool's list and putting it back are atomic, so no lock is needed.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from ..interfaces import Array
from ..signature import Signature
from .plans import CPU, Plan

__all__ = ["Binder"]

_MAX_CALL_BYTES = 48 << 10  # above this the two copies cost more than onnxruntime's wrapper
_MAX_SHAPES = 64
_MAX_BYTES = 32 << 20
_MAX_SEEN = 256


class Binder:
    """Binds buffers for shapes that come again.

    Attributes
    ----------
    pools : dict
        Key to list of free bindings; read by the hot path. Always the same object. The key is the shape of a single
        input, else the number of rows.
    direct : dict
        Key to onnxruntime's inner run, for sizes whose copies would cost more. Always the same object.
    bindable : bool
        Whether the signature allows binding at all: numbers only, and sizes that the key decides.
    usable : bool
        Whether to bind from now on.
    """

    def __init__(self) -> None:
        self.pools: dict[Hashable, list] = {}
        self.direct: dict[Hashable, Any] = {}
        self.bindable = self.usable = False
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self.pools.clear()
        self.direct.clear()
        self._bytes = 0
        self._sizes: dict[Hashable, int] = {}
        self._seen: dict[Hashable, int] = {}
        self._barred: set[Hashable] = set()

    def serve(self, native: Any, signature: Signature, plan: Plan) -> None:
        """Bind for this native session from now on; bindings of another are forgotten.

        Parameters
        ----------
        native : onnxruntime's inner session
            `InferenceSession._sess`.
        signature : Signature
            Decides the key.
        plan : Plan
            `route='inner'` never binds; `route='bound'` binds whatever the size.
        """
        self._native, self._signature = native, signature
        self._limit = _MAX_BYTES // 4 if plan.route == "bound" else _MAX_CALL_BYTES
        self._single = len(signature.inputs) == 1
        firsts = {s.shape[0] if s.shape else None for s in signature.inputs}
        rows = (
            len(firsts) == 1
            and isinstance(next(iter(firsts)), str)
            and all(isinstance(d, int) for s in signature.inputs for d in s.shape[1:])
        )
        fixed = not any(s.dtype in ("string", "bfloat16") for s in (*signature.inputs, *signature.outputs))
        self.bindable = fixed and (self._single or rows)
        self._padded = plan.bucket > 1
        # elsewhere than on the processor the engine copies to the device and back by itself, which only a measurement favours
        self.usable = self.bindable and (plan.route == "bound" or (plan.route == "auto" and plan.provider == CPU))
        self._reset()

    def key(self, feeds: Mapping[str, Array]) -> Hashable:
        """Return the key the hot path looks up."""
        first = feeds[self._signature.inputs[0].name]
        return first.shape if self._single else first.shape[0]

    def offer(self, feeds: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
        """Bind buffers for these sizes if they came before and are worth it, else note that the inner run is best."""
        if not self.bindable or self._native is None:
            return
        size = sum(a.nbytes for a in feeds.values()) + sum(a.nbytes for a in answer.values())
        key = self.key(feeds)
        if key in self._barred or any(math.prod(a.shape) == 0 for a in (*feeds.values(), *answer.values())):
            return
        with self._lock:
            if self._native is None or self._padded:
                return
            if size > self._limit or not self.usable:
                while len(self.direct) >= _MAX_SHAPES:
                    self.direct.pop(next(iter(self.direct)))
                self.direct[key] = self._native.run
            elif key in self.pools or self._again(key):
                self._add(key, feeds, answer, size)

    def _add(self, key: Hashable, feeds: Mapping[str, Array], answer: Mapping[str, Array], size: int) -> None:
        while self._sizes and key not in self.pools and (len(self.pools) >= _MAX_SHAPES or self._bytes + size > _MAX_BYTES):
            self._evict(next(iter(self.pools)))
        binding = self._bind(feeds, answer)
        self._bytes += size
        self._sizes[key] = self._sizes.get(key, 0) + size
        self.pools.setdefault(key, []).append(binding)

    def _again(self, key: Hashable) -> bool:
        if key in self._seen:
            return True
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen[key] = 1
        return False

    def _evict(self, key: Hashable) -> None:
        self.pools.pop(key, None)
        self._bytes -= self._sizes.pop(key, 0)

    def drop(self, key: Hashable) -> None:
        """Never bind these sizes again: a bound call failed."""
        if len(self._barred) >= _MAX_SEEN:
            self.usable = False  # sizes of outputs depend on values; onnxruntime must allocate
        with self._lock:
            self._barred.add(key)
            self._evict(key)

    def _bind(self, feeds: Mapping[str, Array], answer: Mapping[str, Array]) -> tuple:
        from onnxruntime.capi import onnxruntime_pybind11_state as ort

        io = ort.SessionIOBinding(self._native)
        cpu = ort.OrtDevice(ort.OrtDevice.cpu(), ort.OrtDevice.default_memory(), 0)
        inputs = []
        for spec in self._signature.inputs:
            value = feeds[spec.name]
            buffer = np.empty(value.shape, value.dtype)
            io.bind_input(spec.name, cpu, buffer.dtype, buffer.shape, buffer.ctypes.data)
            inputs.append(buffer)
        results = []
        for name, value in answer.items():
            buffer = np.empty(value.shape, value.dtype)
            io.bind_output(name, cpu, buffer.dtype, buffer.shape, buffer.ctypes.data)
            results.append(buffer)
        return self._native.run_with_iobinding, io, tuple(inputs), tuple(results)

    def close(self) -> None:
        """Forget every binding; those in use end with their call."""
        self.usable = False
        self._reset()
        self._native = None

    def abandon(self) -> None:
        """Forget without destroying: in a forked child destructors would wait for threads that are gone."""
        self._lock = threading.Lock()  # a thread that is gone may hold it
        for pool in self.pools.values():
            for call, io, *_ in pool:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(io))
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._native))
        self.close()
