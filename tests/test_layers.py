"""The direction of imports is part of the design: down only, edges lazily, the base light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlbridge

ROOT = Path(__file__).parent.parent / "src" / "mlbridge"
RANKS = [
    {"errors"},
    {"signature"},
    {"artifact", "progress"},
    {"interfaces", "tensors"},
    {"frames"},
    {"executor", "workers"},
    {"package", "plugins", "chunks", "measuring", "description"},
    {"saving"},
    {"model"},
    {"conversion"},
    {"pipeline"},
    {"_api"},
    {"cli", "server", "runtimes", "frameworks"},
    {"testing"},
]
RANK = {room: i for i, rooms in enumerate(RANKS) for room in rooms}
EDGES = {"cli", "server", "runtimes", "frameworks", "testing"}
SHARED = {
    ("frameworks", "trees"),
    ("frameworks", "words"),
    ("frameworks", "hashing"),
    ("runtimes", "wire"),
    ("runtimes", "python_worker"),
    ("runtimes", "python_calls"),
}
WORKER_SCRIPTS = {"runtimes/python_worker.py"}
FILES = sorted(p for p in ROOT.rglob("*.py") if "_pb2" not in p.name and p.relative_to(ROOT).as_posix() not in WORKER_SCRIPTS)


def _imports(path: Path, *, top_only: bool = False):
    """Yield the dotted modules of mlbridge, and foreign roots, that a file imports."""
    package = ["mlbridge", *path.relative_to(ROOT).with_suffix("").parts]
    if package[-1] == "__init__":
        package.pop()
        here = package
    else:
        here = package[:-1]
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test) for n in ast.walk(i)}
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for a in node.names:
                yield a.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            if node.module is None:
                for a in node.names:
                    yield [*module, a.name]
            else:
                yield module


def _room(parts):
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    wrong = []
    for target in _imports(path):
        if target[0] != "mlbridge" or len(target) < 2 or target[1] not in RANK or target[1] == room:
            continue
        allowed = (
            RANK[target[1]] < RANK[room]
            or (room == "cli" and target[1] == "server")
            or (room == "server" and target[1] == "runtimes" and target[2:3] in (["wire"], ["_proto"]))
        )
        if not allowed:
            wrong.append(".".join(target))
    assert not wrong, f"{path.name} imports upwards or sideways: {wrong}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] in ("frameworks", "runtimes")], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_frameworks_and_runtimes_do_not_import_each_other(path):
    room, *rest = path.relative_to(ROOT).with_suffix("").parts
    own = rest[0] if rest else ""
    wrong = [
        ".".join(t)
        for t in _imports(path)
        if t[:2] == ["mlbridge", room] and len(t) > 2 and t[2] not in (own, "_proto") and (room, t[2]) not in SHARED
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.relative_to(ROOT).parts[0].removesuffix(".py") not in EDGES],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_what_is_not_an_edge_imports_only_the_standard_library_and_numpy_at_module_level(path):
    foreign = {t[0] for t in _imports(path, top_only=True)} - {"mlbridge", "numpy", "__future__"} - set(sys.stdlib_module_names)
    assert not foreign


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_the_wire_imports_grpc_and_protobuf(path):
    parts = path.relative_to(ROOT).parts
    if parts == ("runtimes", "onnx", "checks.py"):
        return  # onnx's own parser raises protobuf's DecodeError, which must become an ArtifactError
    if parts[0] == "server" or (parts[0] == "runtimes" and parts[1] in ("wire.py", "grpc.py", "wire", "grpc", "_proto")):
        return
    assert not {t[0] for t in _imports(path)} & {"grpc", "google"}


def test_import_mlbridge_loads_no_library():
    heavy = ["onnxruntime", "onnx", "grpc", "rpy2", "py4j", "sklearn", "torch", "tensorflow", "pandas", "narwhals"]
    heavy += ["hashlib", "zipfile", "tempfile", "shutil", "socket", "html", "difflib", "concurrent.futures", "asyncio"]  # 15 ms together
    code = f"import sys, mlbridge; mlbridge.load; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_import_mlbridge_alone_loads_not_even_numpy():
    code = "import sys, mlbridge; assert set(mlbridge.__all__) <= set(dir(mlbridge)); print([m for m in sys.modules if 'mlbridge' in m or m == 'numpy'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['mlbridge']"


@pytest.mark.parametrize("name", ["Model", "Column", "MlbridgeError", "pipeline"])
def test_whichever_public_name_comes_first_models_compose(name):
    code = f"import mlbridge; mlbridge.{name}; mlbridge.Model.__rshift__; mlbridge.errors.InputError, mlbridge.interfaces.Session"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_public_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        mlbridge.predict  # noqa: B018  # asked for, not used


@pytest.mark.parametrize("name", ["utils", "helpers", "base", "common", "config"])
def test_no_room_without_an_idea(name):
    assert not list(ROOT.rglob(f"{name}.py"))
