"""Graph: the small writer of ONNX graphs that every converter of ours shares.

It knows signatures (inputs, columns, outputs, metadata) and nothing about any library. Trees are written by
`frameworks/trees.py` on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConversionError
from ..executor.graphs import reads
from ..signature import DTYPES, Signature, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["IR_VERSION", "METADATA_KEY", "OPSETS", "Graph"]

OPSETS: Mapping[str, int] = {"": 21, "ai.onnx.ml": 5}  # ml 5 is the first with TreeEnsemble in double
IR_VERSION = 10  # the IR of opset 21; older readers refuse by name instead of guessing
METADATA_KEY = "mlbridge.signature"


class Graph:
    """An ONNX graph under construction; values are named by strings.

    Parameters
    ----------
    signature : Signature
        Its inputs become the graph's inputs; each of its outputs must be given by `output`.

    Examples
    --------
    >>> from mlbridge.signature import Signature, TensorSpec
    >>> g = Graph(Signature([TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows", 2))]))
    >>> g.output("y", g.add("Mul", "x", g.const(np.float64(2))))
    >>> [n.op_type for n in g.model().graph.node]
    ['Mul', 'Identity']
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.opsets: dict[str, int] = dict(OPSETS)
        self._consts: dict[tuple, str] = {}
        self._columns: dict[str, str] = {}
        self._given: set[str] = set()
        self._names = {s.name for s in (*signature.inputs, *signature.outputs)}
        self._count = 0

    def name(self, stem: str = "v") -> str:
        """Return a name nothing else in the graph has."""
        while True:
            self._count += 1
            candidate = f"{stem}_{self._count}"
            if candidate not in self._names:
                self._names.add(candidate)
                return candidate

    def const(self, value: Any, dtype: str | None = None) -> str:
        """Add a constant, once per distinct value; float64 and int64 unless `dtype` says otherwise."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=None if dtype is None or dtype == "string" else dtype)
        if array.dtype.kind in "US":
            array = array.astype(object)
        key = (array.dtype.str, array.shape, repr(array.tolist()) if array.dtype == object else array.tobytes())
        if key not in self._consts:
            self._consts[key] = self.name("const")
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), self._consts[key]))
        return self._consts[key]

    def add(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return its output's name, or a tuple of `outputs` names."""
        from onnx import helper

        names = tuple(self.name(op.lower()) for _ in range(outputs))
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(op, list(inputs), list(names), name=self.name("node"), domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def cast(self, value: str, dtype: str) -> str:
        """Cast to a dtype of our table."""
        return self.add("Cast", value, to=DTYPES[dtype].onnx)

    def concat(self, values: list[str], axis: int = 1) -> str:
        """Join along an axis; one value is returned as it is."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=axis)

    def column(self, name: str) -> str:
        """Return one input column, by name, as ("rows", 1) in its block's dtype; sliced once."""
        if name not in self._columns:
            for spec in self.signature.inputs:
                names = [c.name for c in spec.columns]
                if name in names:
                    self._columns[name] = self._slice(spec, names.index(name))
                    break
            else:
                raise ConversionError(f"the signature has no input column {name!r}")
        return self._columns[name]

    def _slice(self, spec: TensorSpec, index: int) -> str:
        if len(spec.shape) == 1:
            return self.add("Unsqueeze", spec.name, self.const([1], "int64"))
        if len(spec.columns) == 1:
            return spec.name
        return self.add("Gather", spec.name, self.const([index], "int64"), axis=1)

    def output(self, name: str, value: str) -> None:
        """Give a value to an output of the signature; its dtype and rank must be right."""
        from onnx import helper

        self.signature.output(name)
        self.nodes.append(helper.make_node("Identity", [value], [name], name=self.name("node")))
        self._given.add(name)

    def drop_dead(self) -> None:
        """Drop nodes and constants that no output needs."""
        wanted, alive = {o.name for o in self.signature.outputs}, []
        for node in reversed(self.nodes):  # producers come first
            if wanted & set(node.output):
                alive.append(node)
                wanted.update(reads(node))
        self.nodes[:] = reversed(alive)
        self.initializers[:] = [i for i in self.initializers if i.name in wanted]
        self._consts = {key: name for key, name in self._consts.items() if name in wanted}

    def model(self) -> onnx.ModelProto:
        """Return the finished model, signature in its metadata.

        Raises
        ------
        ConversionError
            If an output was not given.
        """
        from onnx import helper

        absent = [s.name for s in self.signature.outputs if s.name not in self._given]
        if absent:
            raise ConversionError(f"the graph gives no {', '.join(absent)}")
        used = {self.opsets_domain(n.domain) for n in self.nodes}
        graph = helper.make_graph(
            self.nodes,
            "mlbridge",
            [_value_info(s) for s in self.signature.inputs],
            [_value_info(s) for s in self.signature.outputs],
            self.initializers,
        )
        imports = [helper.make_opsetid(d, v) for d, v in self.opsets.items() if d in used or d == ""]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="mlbridge")
        helper.set_model_props(model, {METADATA_KEY: self.signature.to_json()})
        return model

    @staticmethod
    def opsets_domain(domain: str) -> str:
        """Return the key of `opsets` for a node's domain; `ai.onnx` is spelt empty."""
        return "" if domain == "ai.onnx" else domain

    def save(self, folder: Path, name: str = "model.onnx") -> Path:
        """Write the checked model into `folder` and return its path."""
        import onnx

        model = self.model()
        onnx.checker.check_model(model)
        path = Path(folder) / name
        path.write_bytes(model.SerializeToString())
        return path


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, DTYPES[spec.dtype].onnx, list(spec.shape))
