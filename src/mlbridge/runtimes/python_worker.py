"""The Python worker: runs one model in another interpreter. Run by path; Python >= 3.8 and numpy, not mlbridge.

Speaks the frames of proto/FRAMES.md with a small codec of its own, because it lives in another environment.
Loads pickles (joblib too), scripts and `module:name`; asks estimators what the signature's outputs are called.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # the script's own folder holds modules named like libraries (grpc.py); nobody may import them
    sys.path[:1] = []

import contextlib
import importlib
import importlib.util
import json
import os
import pickle
import platform
import signal
import socket
import struct
import traceback

import numpy as np

HELLO, LOAD, RUN, RESULT, ERROR, CANCEL, CLOSE, PING, PONG = range(1, 10)
CODES = {1: "?", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "u1", 7: "<u2", 8: "<u4", 9: "<u8", 10: "<f2", 12: "<f4", 13: "<f8"}
DTYPES = {code: np.dtype(text) for code, text in CODES.items()}
BACK = {dtype: code for code, dtype in DTYPES.items()}
STRING = 14
MAX_PAYLOAD = 2**31 - 1
JOIN_BELOW = 1 << 16  # bytes under which one copy costs less than a second system call
OUT_OF_RANGE, RESOURCE_EXHAUSTED = 11, 8


class TooLargeError(Exception):
    """The answer does not fit a frame."""


# ---------------------------------------------------------------- frames


def encode(kind, tensors, request_id=0):
    """Write one frame as a list of buffers."""
    parts = [b"", struct.pack("<II", len(tensors), 0)]  # type: list[bytes | memoryview]
    size = 8
    for name, value in tensors.items():
        array = np.asarray(value, order="C")
        data: bytes | memoryview
        if array.dtype.kind in "OU":
            code, data = STRING, b"".join(map(_string, array.ravel().tolist()))
        else:
            if array.dtype not in BACK:  # the other byte order, perhaps
                array = array.astype(array.dtype.newbyteorder("<"))
            if array.dtype not in BACK:
                raise TypeError(f"output {name!r}: dtype {array.dtype} has no form in a frame")
            code, data = BACK[array.dtype], array.tobytes() if array.nbytes < JOIN_BELOW else array.reshape(-1).data.cast("B")
        text = name.encode()
        head = struct.pack("<I", len(text)) + text + struct.pack("<BBH", code, array.ndim, 0)
        head += bytes(-len(head) & 7) + struct.pack(f"<{array.ndim}Q", *array.shape) + struct.pack("<Q", len(data))
        parts += [head, data, bytes(-len(data) & 7)]
        size += len(head) + len(data) + (-len(data) & 7)
    if size > MAX_PAYLOAD:
        raise TooLargeError(f"the answer would hold {size} bytes, at most {MAX_PAYLOAD} fit a frame")
    parts[0] = struct.pack("<4sBBHII", b"MLB1", kind, 0, 0, size, request_id)
    return [b"".join(parts)] if size < JOIN_BELOW else parts


def _string(item):
    if item is None or item != item:  # NaN is how pandas says missing
        return b"\xff\xff\xff\xff"
    text = str(item).encode()
    return struct.pack("<I", len(text)) + text


def decode(header, payload):
    """Read one frame: type, request id, tensors. Any malformed input is a ValueError."""
    magic, kind, flags, reserved, size, request_id = struct.unpack("<4sBBHII", header)
    if magic != b"MLB1" or not 1 <= kind <= 9 or flags > 1 or reserved or size != len(payload) or size > MAX_PAYLOAD:
        raise ValueError("this is not a frame")
    view, tensors, at = memoryview(payload), {}, 8
    try:
        count, reserved = struct.unpack_from("<II", view)
        if reserved:
            raise ValueError("reserved bits are set")
        for _ in range(count):
            (n,) = struct.unpack_from("<I", view, at)
            name = str(view[at + 4 : at + 4 + n], "utf-8")
            code, rank, reserved = struct.unpack_from("<BBH", view, at + 4 + n)
            if not name or name in tensors or len(name.encode()) != n or reserved or rank > 32:
                raise ValueError("a tensor's head is malformed")
            at = _padded(view, at + 8 + n)
            shape = struct.unpack_from(f"<{rank}Q", view, at)
            (n,) = struct.unpack_from("<Q", view, at + 8 * rank)
            at += 8 * rank + 8
            if n > len(view) - at:
                raise ValueError("the data is cut off")
            tensors[name] = _array(code, shape, view[at : at + n], "F" if flags and rank > 1 else "C")
            at = _padded(view, at + n)
    except struct.error as exc:
        raise ValueError("the payload is cut off") from exc
    if at != len(view):
        raise ValueError("bytes are left over")
    return kind, request_id, tensors


def _padded(view, at):
    if not at & 7 and at <= len(view):
        return at
    end = at + (-at & 7)
    if end > len(view) or bytes(view[at:end]).strip(b"\0"):
        raise ValueError("padding is malformed")
    return end


def _array(code, shape, data, order):
    count = 1
    for size in shape:
        count *= size
    if code == STRING:
        if 4 * count > len(data):
            raise ValueError("the data cannot hold so many strings")
        flat, at = np.empty(count, object), 0
        for i in range(count):
            (n,) = struct.unpack_from("<I", data, at)
            at += 4
            if n != 0xFFFFFFFF:
                if n > len(data) - at:
                    raise ValueError("a string is cut off")
                flat[i] = str(data[at : at + n], "utf-8")
                at += n
        if at != len(data):
            raise ValueError("bytes follow the last string")
    else:
        dtype = DTYPES.get(code)
        if dtype is None or count * dtype.itemsize != len(data):
            raise ValueError("the data does not fit its shape or dtype")
        if code == 1 and len(data) and max(data) > 1:
            raise ValueError("a bool is neither 0 nor 1")
        flat = np.frombuffer(data, dtype)
    return flat if len(shape) == 1 else np.asarray(flat.reshape(shape, order=order), order="C")


def receive(sock, size):
    """Receive exactly so many bytes, or EOFError."""
    view = np.empty(size, np.uint8).data
    got = 0
    while got < size:
        n = sock.recv_into(view[got:])
        if not n:
            raise EOFError
        got += n
    return view


def send(sock, parts):
    for part in parts:
        sock.sendall(part)


def scalar(tensors, name, default=None):
    """Return the one value of a scalar tensor."""
    return tensors[name].reshape(-1)[0] if name in tensors else default


# ---------------------------------------------------------------- models


class Model:
    """An estimator or a function, and the signature it answers by."""

    def __init__(self, what, signature):
        self.what, self.signature = what, signature
        self.function = what if not any(hasattr(what, n) for n in ("predict", "transform")) else None
        if self.function is not None and not callable(what):
            raise TypeError(f"{type(what).__name__} has neither predict nor transform and cannot be called")

    def run(self, feeds, wanted):
        """Answer the outputs asked for."""
        if self.function is not None:
            answer = self.function(feeds)
            if not hasattr(answer, "items"):
                answer = {self.signature["outputs"][0]["name"]: answer}
            return {k: answer[k] for k in (answer if wanted is None else wanted)}
        specs = {s["name"]: s for s in self.signature["outputs"]}
        cache = {}  # type: dict
        x = table(self.signature["inputs"], feeds, self.what)
        return {name: self._answer(specs[name], x, cache) for name in (specs if wanted is None else wanted)}

    def _ask(self, method, x, cache):
        if method not in cache:
            if not hasattr(self.what, method):
                raise AttributeError(f"{type(self.what).__name__} has no {method}")
            cache[method] = getattr(self.what, method)(x)
        return cache[method]

    def _answer(self, spec, x, cache):
        kind, _, index = spec["name"].partition("_")
        index = int(index) if index.isdigit() else None
        if kind == "probabilities":
            answer = self._ask("predict_proba", x, cache)
        elif kind == "decision":
            answer = self._ask("decision_function", x, cache)
        elif kind == "score":
            answer = self._ask("decision_function" if hasattr(self.what, "decision_function") else "score_samples", x, cache)
        elif kind == "transformed":
            answer = self._ask("transform", x, cache)
            answer = answer.toarray() if hasattr(answer, "toarray") else answer
        else:
            answer = self._ask("predict", x, cache)
        if index is not None:
            answer = answer[index] if isinstance(answer, list) else np.asarray(answer)[:, index]
        answer = np.asarray(answer)
        levels = (spec.get("columns") or [{}])[0].get("categories")
        if levels is not None and kind in ("label", "cluster", "prediction"):
            code = {level: i for i, level in enumerate(levels)}
            answer = np.array([code[v] for v in answer.ravel().tolist()], np.int32).reshape(answer.shape)
        return answer


def table(specs, feeds, model):
    """Assemble what the estimator was trained on: an array, or a data frame with levels, text and dates."""
    columns = [c for s in specs for c in s.get("columns", ())]
    names = [str(n) for n in getattr(model, "feature_names_in_", ())]
    plain = len(specs) == 1 and specs[0]["dtype"] not in ("string",) and not any("categories" in c for c in columns)
    if plain and not (columns and names):
        return feeds[specs[0]["name"]]
    pandas = importlib.import_module("pandas")
    data = {}
    for spec in specs:
        block = feeds[spec["name"]]
        for i, column in enumerate(spec.get("columns", ())):
            values = block[:, i] if block.ndim > 1 else block
            if "categories" in column:
                levels = list(column["categories"])
                if column.get("unknown") == "keep":
                    levels.append("\0unknown" if isinstance(levels[0], str) else max(levels) + 1)
                values = pandas.Categorical.from_codes(values, levels, ordered=column.get("ordered", False))
            elif column.get("unit") in ("date", "timestamp"):
                values = pandas.to_datetime(values, unit="D" if column["unit"] == "date" else "s")
            data[column["name"]] = values
    frame = pandas.DataFrame(data)
    return frame[names] if set(names) == set(frame.columns) else frame


def infer(model):
    """Say the signature of a numeric estimator, by asking it about two rows."""
    width = getattr(model, "n_features_in_", None)
    if width is None:
        raise LookupError(f"{type(model).__name__} does not say how many features it was trained on")
    columns = [{"name": str(n)} for n in getattr(model, "feature_names_in_", ())]
    spec = {"name": "features", "dtype": "float64", "shape": ["rows", int(width)]}
    if columns:
        spec["columns"] = columns
    rows = np.zeros((2, width))
    rows[1] = 1.0

    def ask(method, values):
        return np.asarray(getattr(model, method)(table([spec], {"features": values}, model)))

    outputs = _infer_outputs(model, lambda method: ask(method, rows))
    missing = rows.copy()
    missing[0] = np.nan
    try:
        ask("predict" if hasattr(model, "predict") else "transform", missing)
        spec["missing"] = "allow"
    except Exception:  # noqa: BLE001 - whatever it raises, it refuses
        pass
    return {"version": 1, "inputs": [spec], "outputs": outputs}


def _infer_outputs(model, ask):
    classes = getattr(model, "classes_", None)
    if classes is not None and not isinstance(classes, list):
        levels = np.asarray(classes).tolist()
        if all(isinstance(v, float) and v.is_integer() for v in levels):
            levels = [int(v) for v in levels]
        label = {"name": "label", "dtype": "int32", "shape": ["rows"], "columns": [{"name": "label", "categories": levels}]}
        if not hasattr(model, "predict_proba"):
            return [label]
        texts = [("true" if v else "false") if isinstance(v, bool) else str(v) for v in levels]
        answer = {"name": "probabilities", "dtype": str(ask("predict_proba").dtype), "shape": ["rows", len(levels)]}
        return [label, dict(answer, columns=[{"name": t} for t in texts])]
    method, name = ("predict", "prediction") if hasattr(model, "predict") else ("transform", "transformed")
    if hasattr(model, "fit_predict") and hasattr(model, "labels_"):
        name = "cluster"
    answer = ask(method)
    dtype = "string" if answer.dtype.kind in "OU" else "int64" if name == "cluster" else answer.dtype.name
    return [{"name": name, "dtype": dtype, "shape": ["rows", *map(int, answer.shape[1:])]}]


def open_model(tensors):
    """Load what LOAD names; return the Model and what to answer."""
    path, kind, entry = (scalar(tensors, n) for n in ("path", "format", "option.entry"))
    for folder in tensors.get("option.pythonpath", np.empty(0, object)).reshape(-1).tolist():
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if kind == "pickle":
        what = _unpickle(path)
    elif path is not None:
        spec = importlib.util.spec_from_file_location("mlbridge_model", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python script")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        what = getattr(module, entry or "run")
    else:
        module, _, name = entry.partition(":")
        what = importlib.import_module(module)
        for part in name.split("."):
            what = getattr(what, part)
    text = scalar(tensors, "signature")
    model = Model(what, None if text is None else json.loads(text))
    if model.signature is not None:
        return model, {}
    if model.function is not None:
        raise LookupError("a function does not tell its signature")
    model.signature = infer(what)
    return model, {"signature": json.dumps(model.signature)}


def _unpickle(path):
    try:
        joblib = importlib.import_module("joblib")
    except ImportError:
        with open(path, "rb") as f:
            return pickle.load(f)
    return joblib.load(path)


# ---------------------------------------------------------------- the loop

running = False  # whether an interrupt has a call to end


def on_interrupt(signum, frame):
    if running:
        raise KeyboardInterrupt


def failure(exc, loading):
    """Describe an exception as the tensors of ERROR."""
    if isinstance(exc, KeyboardInterrupt):
        return {"class": "CancelledError", "message": "the call was interrupted"}
    out: dict = {"class": "InferenceError", "message": str(exc) or type(exc).__name__}
    if isinstance(exc, TooLargeError):
        out.update({"class": "InputError", "code": OUT_OF_RANGE})
    elif isinstance(exc, MemoryError):
        out.update({"message": f"out of memory: {exc}", "code": RESOURCE_EXHAUSTED, "hint": "raise memory_mb or send fewer rows"})
    elif isinstance(exc, SystemExit):
        out["message"] = f"the model called sys.exit({exc})"
    elif loading and isinstance(exc, ImportError):
        name = (getattr(exc, "name", None) or "the package").split(".")[0]
        out.update({"class": "MissingDependencyError", "hint": f"{sys.executable} -m pip install {name}"})
    elif loading and isinstance(exc, LookupError) and not isinstance(exc, (KeyError, IndexError)):
        out.update({"class": "SignatureError", "hint": "pass signature=... or a sample"})
    elif loading:
        out.update({"class": "ArtifactError", "hint": "was it made by other versions than this interpreter's?"})
    trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    classes = [c.__name__ for c in type(exc).__mro__ if c is not object]
    return dict(out, condition=np.array(classes, object), trace=trace)


def answer(models, kind, tensors):
    """Do what a frame asks; return the answer's type and tensors."""
    global running
    loading = kind == LOAD
    try:
        if kind == LOAD:
            models[int(scalar(tensors, "model", 0))], out = open_model(tensors)
        elif kind == RUN:
            feeds = {n: a for n, a in tensors.items() if n[0] != "@"}
            wanted = tensors["@outputs"].tolist() if "@outputs" in tensors else None
            model = models[int(scalar(tensors, "@model", 0))]
            running = True
            out = model.run(feeds, wanted)
            running = False
        elif kind == PING:
            return PONG, tensors
        elif kind == CLOSE:
            models.pop(int(scalar(tensors, "model")), None)
            out = {}
        else:
            raise ValueError(f"a frame of type {kind} is no question")
    except BaseException as exc:  # noqa: BLE001 - sys.exit() in a model must not end the worker
        running = False
        return ERROR, failure(exc, loading)
    return RESULT, out


def serve(sock):
    """Read, do, answer, until the connection ends."""
    models = {}  # type: dict
    while True:
        header = receive(sock, 16)
        kind, request_id, tensors = decode(header, receive(sock, struct.unpack_from("<I", header, 8)[0]))
        if kind == CLOSE and not tensors:
            return
        kind, out = answer(models, kind, tensors)
        try:
            parts = encode(kind, out, request_id)
        except Exception as exc:  # noqa: BLE001 - an answer without a form in a frame is an answer still
            parts = encode(ERROR, failure(exc, False), request_id)
        del tensors, out
        send(sock, parts)


def connect():
    """Connect to the parent, show the token, say HELLO."""
    token = sys.stdin.readline().strip().encode()
    way, _, where = os.environ["MLBRIDGE_ADDRESS"].partition(":")
    if way == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(where)
    else:
        host, _, port = where.rpartition(":")
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hello = {
        "protocol": 1,
        "runtime": "python",
        "language_version": platform.python_version(),
        "pid": os.getpid(),
        "version.numpy": np.__version__,
    }
    send(sock, [token, *encode(HELLO, {k: np.int64(v) if isinstance(v, int) else v for k, v in hello.items()})])
    return sock


def main():
    signal.signal(signal.SIGINT, on_interrupt)
    sock = connect()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        serve(sock)


if __name__ == "__main__":
    main()
