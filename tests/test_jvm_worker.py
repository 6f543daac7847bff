"""`jvm:` over worker processes: user jars in Java and Scala, what they may do to the host, and to each other."""

from __future__ import annotations

import logging
import os
import signal
import struct
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mlbridge as mb
from mlbridge import errors
from mlbridge.artifact import open_artifact
from mlbridge.interfaces import Deadline
from mlbridge.runtimes.jvm import JvmRuntime
from mlbridge.runtimes.jvm import command as jvm_command

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "jvm-bindings/examples/target/mlbridge-examples-0.1.0.jar"
PACKAGE = "dev.mlbridge.examples."
pytestmark = [
    pytest.mark.jvm,
    pytest.mark.skipif(not (jvm_command.JAR.is_file() and EXAMPLES.is_file()), reason="the jars are not built: make jvm"),
]


def load(name, **options):
    """Open a session of an example class."""
    return JvmRuntime().load(open_artifact(EXAMPLES), member=PACKAGE + name, **options)


@pytest.fixture(scope="module")
def echo():
    session = load("Echo", parameters={"dtypes": ["float64", "float32", "int64", "int32", "uint8", "bool", "string"]})
    yield session
    session.close()


@pytest.fixture(scope="module")
def bad():
    session = load("Misbehaving", heap_mb=64)
    yield session
    session.close()


def ask(session, what, deadline=None):
    return session.run({"what": np.array([what], object)}, deadline=deadline)["y"][0]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# ---------------------------------------------------------------- users' classes


def test_a_java_class_in_a_jar_is_a_model():
    with mb.load(f"jvm:{EXAMPLES}#{PACKAGE}Churn", trust="code") as model:
        got = model.predict([{"age": 30, "calls": 2.0, "plan": "pro"}, {"age": None, "calls": 0.0, "plan": "basic"}])
    p = sigmoid(np.array([-1 + 0.6 + 0.6 + 1.0, -1 + 0.8 + 0.5]))
    np.testing.assert_allclose(got["probabilities"], np.stack([1 - p, p], axis=1), rtol=1e-15)
    assert list(got["label"]) == ["leaves", "leaves"]


def test_the_only_session_a_jar_names_needs_no_class():
    with mb.load(f"jvm:{EXAMPLES}", trust="code") as model:
        assert model.signature.outputs[0].columns[0].categories == ("stays", "leaves")
        assert model.device == "jvm"


@pytest.mark.parametrize("name", ["Scores", "Scores2"], ids=["class", "object"])
def test_a_scala_class_or_object_is_a_model(name):
    with mb.load(f"jvm:{EXAMPLES}#{PACKAGE}{name}", trust="code") as model:
        got = model.predict({"weight": [2.0, 0.5, 1.0], "note": ["añ𝄞", "", None]})
    np.testing.assert_array_equal(got["score"], [6.0, 0.0, np.nan])


def test_an_unknown_level_is_refused_by_name():
    with mb.load(f"jvm:{EXAMPLES}#{PACKAGE}Churn", trust="code") as model, pytest.raises(errors.InputError, match="gold"):
        model.predict({"age": 1.0, "calls": 1.0, "plan": "gold"})


def test_a_jar_never_loads_below_trust_code():
    for source in (f"jvm:{EXAMPLES}#{PACKAGE}Churn", EXAMPLES):
        with pytest.raises(errors.UntrustedArtifactError):
            mb.load(source)


def test_a_package_keeps_the_jar_and_the_class(tmp_path):
    rows = [{"age": 30, "calls": 2.0, "plan": "pro"}]
    with mb.load(f"jvm:{EXAMPLES}#{PACKAGE}Churn", trust="code", sample=rows) as model:
        want = model.predict(rows)
        model.save(tmp_path / "churn.mlb")
    with pytest.raises(errors.UntrustedArtifactError, match=r"churn\.mlb") as caught:
        mb.load(tmp_path / "churn.mlb")
    pin = caught.value.hint.split("'")[-2]  # the hint's hash is one that works
    for trust in ("code", pin):
        with mb.load(tmp_path / "churn.mlb", trust=trust) as again:
            np.testing.assert_array_equal(again.predict(rows)["probabilities"], want["probabilities"])


def test_a_package_keeps_the_parameters(tmp_path):
    with mb.load(f"jvm:{EXAMPLES}#{PACKAGE}Echo", trust="code", options={"jvm": {"parameters": {"dtypes": ["int64"]}}}) as model:
        signature = model.signature
        model.save(tmp_path / "echo.mlb")
    with mb.load(tmp_path / "echo.mlb", trust="code") as again:
        assert again.signature == signature
        np.testing.assert_array_equal(again.run({"int64": np.arange(3)[:, None]})["int64_out"], np.arange(3)[:, None])


def test_a_runtime_on_the_class_path_is_found_by_name(tmp_path):
    model = tmp_path / "answer.txt"
    model.write_text("42.5")
    session = JvmRuntime().load(open_artifact(model), loader="constant", classpath=str(EXAMPLES))
    np.testing.assert_array_equal(session.run({"x": np.zeros(3)})["y"], [42.5] * 3)
    session.close()
    model.write_text("many")
    with pytest.raises(errors.ArtifactError, match="no number"):
        JvmRuntime().load(open_artifact(model), loader="constant", classpath=str(EXAMPLES))
    with pytest.raises(errors.ArtifactError, match="not a jar"):
        JvmRuntime().load(open_artifact(model))
    with pytest.raises(errors.MissingDependencyError, match=r"absent\.jar"):
        JvmRuntime().load(open_artifact(model), loader="constant", classpath=str(tmp_path / "absent.jar"))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_dtype_comes_back_bit_by_bit(echo, rows):
    rng = np.random.default_rng(1)
    feeds = {
        "float64": rng.normal(size=(rows, 2)),
        "float32": rng.normal(size=(rows, 2)).astype("f4"),
        "int64": rng.integers(-(2**63), 2**63 - 1, (rows, 2)),
        "int32": rng.integers(-(2**31), 2**31 - 1, (rows, 2), dtype="i4"),
        "uint8": rng.integers(0, 255, (rows, 2), dtype="u1"),
        "bool": rng.integers(0, 2, (rows, 2)).astype(bool),
        "string": np.array([["", None], ["é𝄞\0", "x"], ["\n", "y" * 100]][:rows], object).reshape(rows, 2),
    }
    if rows:
        feeds["float64"].view("u8")[0, 0] = 0x7FF00000000007A2  # R's missing number
        feeds["float64"][-1, 1] = -np.inf
    got = echo.run(feeds)
    assert list(got) == [f"{name}_out" for name in feeds]
    for name, want in feeds.items():
        back = got[f"{name}_out"]
        assert back.dtype == want.dtype
        assert back.shape == want.shape
        assert back.tolist() == want.tolist() if want.dtype == object else back.tobytes() == want.tobytes()


def test_outputs_asked_for_are_those_answered_in_order(echo):
    feeds = {s.name: np.zeros((1, 1), object if s.dtype == "string" else s.dtype) for s in echo.signature.inputs}
    feeds["string"][:] = "a"
    assert list(echo.run(feeds, outputs=["string_out", "float64_out"])) == ["string_out", "float64_out"]


def test_eight_megabytes_cross_and_come_back():
    session = load("Echo")
    x = np.random.default_rng(2).normal(size=(1000, 1000))
    assert session.run({"float64": x})["float64_out"].tobytes() == x.tobytes()
    session.close()


# ---------------------------------------------------------------- what a model may do to the host


@pytest.mark.parametrize("what", ["exit 0", "exit 3", "halt"])
def test_a_model_that_ends_the_process_is_a_typed_error_and_lives_on(bad, what):
    with pytest.raises(errors.WorkerDiedError):
        ask(bad, what)
    assert ask(bad, "fine", Deadline(60)) == 1.0


@pytest.mark.parametrize(
    ("what", "match", "condition"),
    [
        ("throw", "the model broke: é", "java.lang.IllegalStateException"),
        ("error", "an error, not an exception", "java.lang.AssertionError"),
        ("overflow", "StackOverflowError", "java.lang.StackOverflowError"),
        ("memory", "out of memory", "java.lang.OutOfMemoryError"),
        ("deserialise", "REJECTED", "java.io.InvalidClassException"),
        ("broken class", "ExceptionInInitializerError", "java.lang.ExceptionInInitializerError"),
        ("broken class", "Could not initialize", "java.lang.NoClassDefFoundError"),
        ("mute", r"Misbehaving\$Mute", PACKAGE + "Misbehaving$Mute"),
        ("null", "answered null", "dev.mlbridge.MlbridgeException"),
    ],
)
def test_what_a_model_throws_is_an_inference_error_and_the_process_lives(bad, what, match, condition):
    before = bad.pool.pids
    with pytest.raises(errors.InferenceError, match=match) as caught:
        ask(bad, what, Deadline(60))
    assert caught.value.condition[0] == condition
    assert caught.value.runtime == "jvm"
    assert ask(bad, "fine", Deadline(60)) == 1.0
    assert bad.pool.pids == before


def test_an_output_that_is_null_is_absent_and_the_process_lives(bad):
    before = bad.pool.pids
    with pytest.raises(errors.InferenceError, match="output 'y' is absent"):
        ask(bad, "null output")
    assert ask(bad, "fine") == 1.0
    assert bad.pool.pids == before


def test_a_missing_class_names_the_option(bad):
    with pytest.raises(errors.MissingDependencyError, match="com/acme/Absent") as caught:
        ask(bad, "missing class")
    assert "classpath" in caught.value.hint


@pytest.mark.parametrize("what", ["patient loop", "sleep", "loop"])
def test_a_call_past_its_deadline_ends_and_the_next_one_works(bad, what):
    assert ask(bad, "fine", Deadline(60)) == 1.0
    with pytest.raises(errors.BridgeTimeoutError):
        ask(bad, what, Deadline(0.3))
    assert ask(bad, "fine", Deadline(60)) == 1.0


def test_a_loop_that_listens_costs_no_process(bad):
    assert ask(bad, "fine", Deadline(60)) == 1.0
    before = bad.pool.pids
    deadline = Deadline(60)
    timer = threading.Timer(0.2, deadline.cancel)
    timer.start()
    with pytest.raises(errors.CancelledError):
        ask(bad, "sleep", deadline)
    assert ask(bad, "fine", Deadline(60)) == 1.0
    assert bad.pool.pids == before


def test_what_a_model_prints_goes_to_the_log(bad, caplog):
    with caplog.at_level(logging.INFO, "mlbridge.jvm"):
        assert ask(bad, "print", Deadline(60)) == 2.0
        ask(bad, "fine", Deadline(60))
        bad_lines = lambda: [r.message for r in caplog.records if "printed by the model" in r.message]  # noqa: E731
        waited = threading.Event()
        for _ in range(100):
            if bad_lines():
                break
            waited.wait(0.05)
    assert bad_lines()


# ---------------------------------------------------------------- what does not load


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("Absent", errors.NotFoundError, "holds no class"),
        ("Broken", errors.ArtifactError, "no weights here"),
        ("Misbehaving$Note", errors.ArtifactError, "does not implement|cannot be made"),
    ],
)
def test_a_class_that_is_no_session_is_refused(name, error, match):
    with pytest.raises(error, match=match):
        load(name)


def test_a_class_for_a_newer_java_is_refused_with_a_hint(tmp_path):
    newer = tmp_path / "newer.jar"
    with zipfile.ZipFile(EXAMPLES) as src, zipfile.ZipFile(newer, "w") as dst:
        for name in src.namelist():
            data = src.read(name)
            if name.endswith("Churn.class"):
                data = data[:6] + struct.pack(">H", 99) + data[8:]
            dst.writestr(name, data)
    with pytest.raises(errors.ArtifactError, match="newer Java") as caught:
        JvmRuntime().load(open_artifact(newer), member=PACKAGE + "Churn")
    assert "java" in caught.value.hint


def test_a_truncated_jar_is_an_artifact_error(tmp_path):
    cut = tmp_path / "cut.jar"
    cut.write_bytes(EXAMPLES.read_bytes()[:-2000])
    with pytest.raises(errors.MlbridgeError) as caught:
        JvmRuntime().load(open_artifact(cut), member=PACKAGE + "Churn")
    assert isinstance(caught.value, (errors.ArtifactError, errors.NotFoundError))


def test_a_missing_java_names_the_command(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.MissingDependencyError) as caught:
        load("Echo")
    assert "apt-get install" in caught.value.hint


def test_a_missing_jar_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(jvm_command, "JAR", tmp_path / "absent.jar")
    with pytest.raises(errors.MissingDependencyError) as caught:
        load("Echo")
    assert "make jvm" in caught.value.hint


def test_a_java_that_is_too_old_is_refused_by_its_release_file(tmp_path):
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin/java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    (tmp_path / "release").write_text('JAVA_VERSION="1.8.0_392"\n')
    with pytest.raises(errors.UnavailableError, match="Java 8"):
        load("Echo", java=str(java))


def test_a_misspelt_option_is_refused():
    with pytest.raises(errors.InputError, match="heap"):
        mb.load(f"jvm:{EXAMPLES}", trust="code", options={"jvm": {"heap": 4}})


# ---------------------------------------------------------------- processes


def test_models_with_equal_options_share_a_process_others_do_not():
    one, two, three = load("Churn", heap_mb=100), load("Scores", heap_mb=100), load("Scores", heap_mb=128)
    try:
        assert one.pool is two.pool
        assert one.pool is not three.pool
        one.close()
        got = two.run({"features": np.ones((1, 1)), "text": np.array([["ab"]], object)})
        assert got["score"][0] == 2.0
    finally:
        for session in (one, two, three):
            session.close()
    assert not one.pool.pids


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="/proc is not there")
def test_a_worker_listens_to_nobody(echo):
    pid = echo.pool.pids[0]
    inodes = {os.readlink(f)[8:-1] for f in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(f).startswith("socket:")}
    assert inodes  # its own connections
    listening = set()
    for table in ("tcp", "tcp6"):
        rows = [r.split() for r in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
        listening |= {r[9] for r in rows if r[3] == "0A"}
    rows = [r.split() for r in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening |= {r[6] for r in rows if int(r[3], 16) & 0x10000}  # __SO_ACCEPTCON
    assert not inodes & listening


def test_many_threads_ask_at_once():
    session = load("Echo", concurrency=3)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            x = rng.normal(size=(rng.integers(0, 50), 3))
            if session.run({"float64": x})["float64_out"].tobytes() != x.tobytes():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    session.close()
    assert not wrong


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(
    ("kind", "error"),
    [("NOT_FOUND", errors.NotFoundError), ("UNAVAILABLE", errors.UnavailableError), ("MISSING_DEPENDENCY", errors.MissingDependencyError)],
)
def test_a_typed_error_of_a_constructor_keeps_its_type(kind, error):
    with pytest.raises(error, match="said by the session") as caught:
        JvmRuntime().load(open_artifact(EXAMPLES), member="dev.mlbridge.examples.Broken", parameters={"kind": kind})
    assert caught.value.hint == "as it said"


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.full)])
def test_killed_under_load_every_error_is_typed_and_it_lives_on(kills):
    session = load("Echo", heap_mb=96)
    x = np.random.default_rng(3).normal(size=(64, 64))
    stop, wrong, right = threading.Event(), [], [0, 0]

    def work(i):
        while not stop.is_set():
            try:
                if session.run({"float64": x}, deadline=Deadline(60))["float64_out"].tobytes() != x.tobytes():
                    wrong.append("a wrong answer")
                right[i] += 1
            except errors.BridgeError:
                pass
            except BaseException as exc:  # noqa: BLE001 - the claim is that there is none
                wrong.append(repr(exc))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for _ in range(kills):
        session.run({"float64": x[:1]}, deadline=Deadline(60))  # up again
        for pid in session.pool.pids:
            os.kill(pid, signal.SIGKILL)
        while True:
            try:
                session.run({"float64": x[:1]}, deadline=Deadline(60))
                break
            except errors.BridgeError:
                continue
    stop.set()
    for t in threads:
        t.join()
    assert ask_again(session, x)
    session.close()
    assert not wrong
    assert min(right) > 0


def ask_again(session, x):
    return session.run({"float64": x}, deadline=Deadline(60))["float64_out"].tobytes() == x.tobytes()


# ---------------------------------------------------------------- the jar


def test_the_jar_holds_what_its_notice_lists_and_nothing_else():
    with zipfile.ZipFile(jvm_command.JAR) as z:
        names = z.namelist()
        classes = [n for n in names if n.endswith(".class")]
        notice = z.read("META-INF/NOTICE").decode()
        assert b"Apache License" in z.read("META-INF/LICENSE")
    owners = {
        "dev/mlbridge/shaded/gson/": "Gson",
        "dev/mlbridge/shaded/commons/lang3/": "Commons Lang",
        "dev/mlbridge/shaded/commons/text/": "Commons Text",
        "dev/mlbridge/shaded/commons/math3/": "Commons Math",
        "dev/mlbridge/shaded/google/common/": "Guava",
        "dev/mlbridge/shaded/google/protobuf/": "Protocol Buffers",
        "dev/mlbridge/shaded/google/thirdparty/": "Guava",
        "dev/mlbridge/shaded/grpc/": "gRPC Java",
        "dev/mlbridge/shaded/perfmark/": "PerfMark",
        "org/pmml4s/": "PMML4S",
        "spray/json/": "spray-json",
        "scala/xml/": "scala-xml",
        "scala/": "Scala library",
        "dev/mlbridge/": "mlbridge",
    }
    stray = [c for c in classes if not c.startswith(tuple(owners)) and not c.startswith("META-INF/versions/")]
    assert not stray
    shaded = [c for c in classes if c.startswith("dev/mlbridge/shaded/")]
    assert not [c for c in shaded if not c.startswith(tuple(o for o in owners if "shaded" in o))]
    assert all(name in notice for name in owners.values())
    native = [n for n in names if n.endswith((".so", ".dll", ".jnilib", ".dylib"))]
    assert all("epoll" in n for n in native)  # Netty's library for TLS holds code under the OpenSSL licence
    assert not [c for c in classes if c.startswith(("dev/mlbridge/examples", "org/apache/spark", "ai/onnxruntime"))]
