"""Live objects: how one runs in the runtime or the framework that knows it.

Called by `wrap`, and by `load` for what a file turned out to hold.
"""

from __future__ import annotations

from typing import Any

from .. import plugins
from ..conversion.routes import Native, Options, Wishes, promise_checked, with_samples
from ..errors import ConversionError, InputError, UnsupportedError
from ..interfaces import Framework
from ..model import Model, Route
from ..signature import Signature

__all__ = ["arrays_of", "name_of", "native_of", "wrap_bare"]


def arrays_of(sample: Any) -> Any:
    """Return a sample with the tensors in it as arrays; all else as it is. Only samples: calls say what they cost."""
    if isinstance(sample, dict):
        return {k: arrays_of(v) for k, v in sample.items()}
    if type(sample) is tuple:
        return tuple(map(arrays_of, sample))
    root = type(sample).__module__.split(".")[0]
    if root == "torch" and hasattr(sample, "detach"):
        return sample.detach().cpu().numpy()
    return sample.numpy() if root == "tensorflow" and hasattr(sample, "numpy") else sample


def wrap_bare(model: object, sample: object | None, signature: Signature | None, wishes: Wishes) -> Model:
    """Wrap what no framework knows: an ONNX graph, a function with a signature, another runtime's object."""
    if isinstance(model, type):
        raise InputError(f"{model.__qualname__} is a class, not a model", hint="fit one, and pass the fitted object")
    runtime = plugins.runtime_for(model)
    if runtime is None:
        raise UnsupportedError(
            f"no framework or runtime knows {type(model).__module__}.{type(model).__qualname__}",
            hint="pass a function from feeds to outputs with signature=…, or install the plug-in for its library",
        )
    keywords: dict[str, Any] = wishes.options.of(runtime)
    if runtime.name == "onnx":
        if wishes.via == "native":
            raise UnsupportedError("an ONNX graph has no native runtime but onnx", hint="leave via='auto'")
        session = runtime.wrap(model, signature=signature, **wishes.placing, **keywords)  # type: ignore[arg-type]
        route = Route("onnx", "the model is ONNX", "onnx")
    else:
        if wishes.via == "onnx":
            raise ConversionError(f"{type(model).__name__} has no converter", hint="leave via='auto' to run it natively")
        if signature is None and hasattr(runtime, "infer"):
            signature = runtime.infer(model, sample)
        if signature is None:
            raise InputError("this model needs a signature", hint="pass signature=mlbridge.Signature([...], [...])")
        session = runtime.wrap(model, signature=signature, **keywords)
        route = Route(runtime.name, "no framework converts it; it runs in its own runtime")
    made = Model(session, runtime=runtime, route=route, name=name_of(model))
    return with_samples(promise_checked(made, sample), sample)


def name_of(model: object) -> str:
    """Return what to call a live object."""
    name = getattr(model, "__name__", None)
    return name if isinstance(name, str) else type(model).__name__


def native_of(model: object, framework: Framework, options: Options) -> Native:
    """Return how to run a live object natively: in the runtime that knows it, else through its framework."""

    def native(signature: Signature) -> tuple:
        other = plugins.runtime_for(model)
        if other is not None and other.name not in ("onnx", "python"):
            return other, other.wrap(model, signature=signature, **options.of(other))
        function = framework.native(model, signature=signature, **options.of(framework))
        runtime = plugins.runtime("python")
        return runtime, runtime.wrap(model, signature=signature, native=function, **options.of(runtime))

    return native
