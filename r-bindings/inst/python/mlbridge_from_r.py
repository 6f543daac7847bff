"""What R asks of mlbridge, in texts and bytes only: arrays cross as frames, everything else as JSON.

Imported by the R package through reticulate. A function answers a JSON text, with `error` where one was raised, or the
bytes of a RESULT frame.
"""

import itertools
import json
import warnings

import numpy as np

import mlbridge
from mlbridge.errors import MlbridgeError
from mlbridge.frames import FrameType, decode_frame, encode_frame

_MODELS: dict[int, mlbridge.Model] = {}
_NUMBERS = itertools.count(1)


def _told(work):
    """Call `work`; its warnings and its error become a text."""

    def call(*args):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            try:
                answer = work(*args)
            except (MlbridgeError, OSError, ImportError) as exc:
                answer = {"error": _error(exc)}
        if isinstance(answer, bytearray):
            return answer
        # deprecations of libraries are not R's business
        ours = [str(w.message) for w in caught if not issubclass(w.category, (DeprecationWarning, FutureWarning, ResourceWarning))]
        return json.dumps(answer | {"warnings": ours})

    return call


def _error(exc):
    if isinstance(exc, MlbridgeError):
        problems = list(getattr(exc, "problems", ())) or [exc.message]
        return {"class": type(exc).__name__, "message": exc.message, "hint": exc.hint, "code": exc.code.name, "problems": problems}
    name = "MissingDependencyError" if isinstance(exc, ImportError) else "NotFoundError" if isinstance(exc, FileNotFoundError) else "ArtifactError"
    return {"class": name, "message": str(exc), "hint": None, "code": None, "problems": [str(exc)]}


@_told
def open_model(request):
    """Load a model; its number stands for it from now on."""
    asked = json.loads(request)
    model = mlbridge.load(asked.pop("source"), **asked)
    number = next(_NUMBERS)
    _MODELS[number] = model
    route = model.route
    parity = str(model.report) if model.report is not None else "the native model itself" if route.runtime != "onnx" else "not verified"
    about = {"runtime": route.runtime, "device": model.device, "route": route.why, "trust": route.trust, "parity": parity}
    return {"number": number, "name": model.name, "signature": model.signature.to_dict(), "about": about}


@_told
def run_model(number, frame, request):
    """Answer a RUN frame by a RESULT frame."""
    asked = json.loads(request)
    answer = _MODELS[int(number)].run(decode_frame(bytes(frame)).tensors, outputs=asked["outputs"], timeout_s=asked["timeout_s"])
    # R has no number of 16 bits
    wide = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in answer.items()}
    return bytearray(encode_frame(FrameType.RESULT, wide))


@_told
def close_model(number):
    """Free a model."""
    _MODELS.pop(int(number)).close()
    return {}
