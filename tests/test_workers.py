"""Worker processes: whatever they do, the answer is right or the error is typed, and the next call works."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mlbridge.errors import (
    ArtifactError,
    BridgeError,
    BridgeTimeoutError,
    CancelledError,
    ClosedError,
    InferenceError,
    InputError,
    MissingDependencyError,
    SignatureError,
    StatusCode,
    UntrustedArtifactError,
    WorkerDiedError,
)
from mlbridge.interfaces import Deadline, Session
from mlbridge.runtimes import python_worker
from mlbridge.signature import Signature, TensorSpec
from mlbridge.workers import Backoff, ForeignError, WorkerCommand, fit_outputs, open_session
from mlbridge.workers import process as process_module

DOUBLES = Path(__file__).parent / "hostile" / "workers"
SCRIPT = python_worker.__file__
SIGNATURE = Signature([TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows", 2))])
FAST = Backoff(first_s=0.001, most_s=0.01, attempts=3)
LONG = 60.0


def command(*argv: str, **changes) -> WorkerCommand:
    settings = {"runtime": "python", "start_timeout_s": 30.0, "grace_s": 1.0, "cwd": str(DOUBLES), **changes}
    return WorkerCommand(argv=(sys.executable, "-u", *argv), **settings)


@pytest.fixture
def opened():
    sessions = []

    def open_(mode: str | None = None, *, workers: int = 1, signature=SIGNATURE, backoff=FAST, load=None, **changes):
        argv = (SCRIPT,) if mode is None else (str(DOUBLES / "double.py"), SCRIPT, mode)
        load = {"path": str(DOUBLES / "model.py"), "format": "script"} if load is None else load
        session = open_session(command(*argv, **changes), load, signature=signature, workers=workers, backoff=backoff)
        sessions.append(session)
        return session

    yield open_
    for session in sessions:
        session.close()


def feeds(what: float = 0.0, rows: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((rows, 2), what)}


def until(holds, timeout_s: float = LONG) -> None:
    ends_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def raises(kind: type[Exception], session, x: dict, deadline: Deadline | None = None) -> Exception:
    with pytest.raises(kind) as caught:
        session.run(x, deadline=deadline)
    return caught.value


def gone(pid: int) -> bool:
    """Whether no process has the id, zombies included."""
    return not Path(f"/proc/{pid}").exists()


def works(session) -> bool:
    x = np.arange(6.0).reshape(3, 2)
    return session.run({"x": x}, deadline=Deadline(LONG))["y"].tolist() == (2 * x).tolist()


# ---------------------------------------------------------------- the plain way


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_worker_answers(opened, transport):
    session = opened(transport=transport)
    assert works(session)
    assert isinstance(session, Session)
    assert (session.device, session.max_concurrency) == ("python", 1)


def test_a_temporary_folder_too_deep_for_a_unix_socket_is_no_matter(opened, monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert works(opened())
    assert not list(deep.iterdir())


def test_an_empty_batch_and_chosen_outputs_come_back(opened):
    session = opened()
    assert session.run(feeds(rows=0))["y"].shape == (0, 2)
    assert list(session.run(feeds(), outputs=["y"])) == ["y"]


def test_an_unknown_output_is_refused(opened):
    session = opened()
    with pytest.raises((InputError, InferenceError)):
        session.run(feeds(), outputs=["nope"])
    assert works(session)


def test_answers_are_fresh_and_writable(opened):
    session = opened()
    a, b = session.run(feeds(1.0))["y"], session.run(feeds(1.0))["y"]
    a[:] = 9
    assert b.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("column_major", [False, True], ids=["by rows", "by columns"])
def test_questions_of_changing_shapes_get_their_own_answers(opened, transport, column_major):
    session = opened(transport=transport, column_major=column_major)
    rng = random.Random(0)
    kept = []
    for _ in range(60):
        x = np.array([[rng.random(), rng.random()] for _ in range(rng.choice([1, 1, 1, 3, 0, 9000]))]).reshape(-1, 2)
        how = rng.choice([{}, {}, {"deadline": Deadline(LONG)}, {"outputs": ["y"]}])
        kept.append((2 * x, session.run({"x": x}, **how)["y"]))
    for want, got in kept:  # none was overwritten by a later one
        np.testing.assert_array_equal(got, want, strict=True)


def test_a_question_without_a_form_after_others_costs_no_worker(opened):
    session = opened()
    pids = session.pool.pids
    for _ in range(3):
        session.run(feeds())
    raises(InputError, session, {"x": np.array([[1j, 1j]])})
    assert works(session)
    assert session.pool.pids == pids


def test_workers_run_at_once(opened, tmp_path):
    session = opened(workers=2, env={"MEETING": str(tmp_path)})
    assert session.max_concurrency == 2
    out = {}
    x = [np.array([[-10.0, 0.0]]), np.array([[-10.0, 1.0]])]
    threads = [threading.Thread(target=lambda i=i: out.update({i: session.run({"x": x[i]}, deadline=Deadline(LONG))["y"]})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: y.tolist() for i, y in out.items()} == {0: [[-20.0, 0.0]], 1: [[-20.0, 2.0]]}


def test_more_threads_than_workers_wait(opened):
    session, out = opened(), []
    threads = [threading.Thread(target=lambda i=i: out.append((i, session.run(feeds(i))["y"][0, 0]))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(out) == [(i, 2.0 * i) for i in range(8)]


def test_a_wait_for_a_busy_worker_ends_with_its_deadline(opened):
    session = opened()
    busy = Deadline(LONG)
    thread = threading.Thread(target=lambda: raises(CancelledError, session, feeds(-2), busy))
    thread.start()
    until(lambda: not session.pool._idle)
    with pytest.raises(BridgeTimeoutError):
        session.run(feeds(), deadline=Deadline(0.05))
    waiting = Deadline(LONG)
    threading.Timer(0.05, waiting.cancel).start()
    with pytest.raises(CancelledError):
        session.run(feeds(), deadline=waiting)
    busy.cancel()
    thread.join()
    assert works(session)


# ---------------------------------------------------------------- errors of the model


def test_an_error_inside_keeps_its_class_message_and_trace(opened):
    session = opened()
    with pytest.raises(InferenceError, match="does not like this") as caught:
        session.run(feeds(-1))
    error = caught.value
    assert error.runtime == "python"
    assert error.condition[:3] == ("OddError", "ValueError", "Exception")
    assert "model.py" in error.trace
    assert isinstance(error.__cause__, ForeignError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.condition, again.trace) == (error.message, error.condition, error.trace)
    pid = session.pool.pids
    assert works(session)
    assert session.pool.pids == pid


def test_sys_exit_in_a_model_is_an_error_of_the_model(opened):
    session = opened()
    with pytest.raises(InferenceError, match=r"sys\.exit"):
        session.run(feeds(-6))
    assert works(session)


def test_too_little_memory_is_an_error_of_the_model(opened):
    session = opened(memory_mb=2048)
    with pytest.raises(InferenceError, match="memory") as caught:
        session.run(feeds(-8))
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert works(session)


def test_what_a_worker_prints_is_logged_by_level(opened, caplog):
    caplog.set_level(logging.DEBUG, "mlbridge.python")
    session = opened()
    assert session.run(feeds(-7))["y"].tolist() == [[-14.0, -14.0]]
    until(lambda: sum(len(r.getMessage()) for r in caplog.records if r.getMessage().startswith("x")) == 100_000)
    said = {(r.levelname, r.getMessage()) for r in caplog.records}
    assert {("INFO", "loaded"), ("WARNING", "careful"), ("INFO", "plain"), ("WARNING", "to stderr")} <= said


# ---------------------------------------------------------------- workers that fail to start


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("exit_at_start", "exit status 3.*I do not want to"),
        ("never_connects", "deadline"),
        ("wrong_token", "deadline|ended"),
        ("silent", "deadline"),
        ("no_hello", "malformed"),
        ("newer_protocol", "version 99"),
        ("load_crash", "exit status 7"),
        ("load_garbage", "malformed"),
    ],
)
def test_a_worker_that_does_not_start_is_a_bridge_error_and_leaves_nothing(opened, monkeypatch, mode, says):
    pids = []
    spawn = process_module._spawn
    monkeypatch.setattr(process_module, "_spawn", lambda *a: pids.append(p := spawn(*a)) or p)
    with pytest.raises(BridgeError, match=f"(?s){says}"):
        opened(mode, start_timeout_s=30.0 if mode in ("exit_at_start", "load_crash") else 2.0)
    assert len(pids) == 1
    assert gone(pids[0].pid)


def test_a_program_that_is_not_there_is_a_missing_dependency():
    with pytest.raises(MissingDependencyError, match="no-such-program"):
        open_session(WorkerCommand(argv=("no-such-program",), runtime="python"), {}, signature=SIGNATURE)


def test_a_file_that_does_not_load_is_the_workers_own_error(opened):
    with pytest.raises(ArtifactError):
        opened(load={"path": str(DOUBLES / "absent.pkl"), "format": "pickle"})


def test_a_model_without_signature_is_refused(opened):
    with pytest.raises(SignatureError):
        opened(signature=None)


def test_a_guest_without_the_token_is_dropped_and_holds_up_nobody():
    token = b"ab" * 32
    with process_module._listener("tcp") as (listener, _):
        address = listener.getsockname()
        silent, liar, early = (socket.create_connection(address) for _ in range(3))
        liar.sendall(b"cd" * 32)
        early.sendall(token[:-1])
        early.shutdown(socket.SHUT_WR)
        right = socket.create_connection(address)
        right.sendall(token + b"more")
        guests = process_module._guests(listener, token, Deadline(LONG), lambda: True)
        with next(guests) as accepted:
            assert accepted.getpeername() == right.getsockname()
            assert accepted.recv(4) == b"more"
        guests.close()
        assert liar.recv(1) == early.recv(1) == b""
        for sock in (silent, liar, early, right):
            sock.close()


# ---------------------------------------------------------------- workers that lie or die


@pytest.mark.parametrize("mode", ["garbage", "too_long", "wrong_id", "wrong_type"])
def test_an_answer_that_is_none_is_a_bridge_error_and_a_new_worker(opened, mode):
    session = opened(mode)
    pids = session.pool.pids
    with pytest.raises(BridgeError) as caught:
        session.run(feeds(1), deadline=Deadline(LONG))
    assert not isinstance(caught.value, (WorkerDiedError, BridgeTimeoutError))
    assert session.run(feeds(), deadline=Deadline(LONG))["y"].tolist() == [[0, 0]]
    assert session.pool.pids != pids


@pytest.mark.parametrize("mode", ["truncated", "closes", "exit_0", "segfault"])
def test_a_death_in_flight_is_a_worker_died_error_and_a_new_worker(opened, mode):
    session = opened(mode)
    with pytest.raises(WorkerDiedError, match={"exit_0": "exit status 0", "segfault": "SIGSEGV"}.get(mode, "died")):
        session.run(feeds(1), deadline=Deadline(LONG))
    assert session.run(feeds(), deadline=Deadline(LONG))["y"].tolist() == [[0, 0]]


@pytest.mark.parametrize("what", [-4, -5, -9], ids=["segfault", "exit 0", "abort"])
def test_a_model_that_ends_its_process_is_a_worker_died_error(opened, what):
    session = opened()
    with pytest.raises(WorkerDiedError):
        session.run(feeds(what))
    assert works(session)


@pytest.mark.parametrize("mode", ["wrong_output", "wrong_rows"])
def test_an_answer_against_the_signature_is_an_inference_error(opened, mode):
    session = opened(mode)
    with pytest.raises(InferenceError, match="signature"):
        session.run(feeds(1))


@pytest.mark.parametrize(("mode", "kind"), [("no_class", InferenceError), ("untrusted", InferenceError), ("code_of_nothing", InputError)])
def test_an_odd_error_frame_is_a_typed_error(opened, mode, kind):
    session = opened(mode)
    with pytest.raises(kind) as caught:
        session.run(feeds(1))
    assert not isinstance(caught.value, UntrustedArtifactError)


def test_a_worker_that_died_while_idle_costs_no_request(opened):
    session = opened()
    for _ in range(3):
        (pid,) = session.pool.pids
        os.kill(pid, signal.SIGKILL)
        until(lambda: not session.pool._slots[0].process.alive)
        assert works(session)
        assert session.pool.pids != (pid,)


def test_a_request_the_dead_worker_never_read_is_asked_again(opened):
    session = opened()
    (pid,) = session.pool.pids
    os.kill(pid, signal.SIGSTOP)  # it will not read
    out = []
    thread = threading.Thread(target=lambda: out.append(works(session)))
    thread.start()
    until(lambda: not session.pool._idle)
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert out == [True]


def test_a_crash_loop_backs_off_and_then_the_model_has_failed(opened):
    session = opened()
    for _ in range(FAST.attempts):
        with pytest.raises(WorkerDiedError):
            session.run(feeds(-9), deadline=Deadline(LONG))
    with pytest.raises(BridgeError, match=r"FAILED.*3 times") as caught:
        session.run(feeds(), deadline=Deadline(LONG))
    assert not isinstance(caught.value, WorkerDiedError)
    assert session.pool.failed


def test_a_model_that_cannot_be_loaded_again_has_failed(opened, tmp_path):
    script = tmp_path / "model.py"
    script.write_text("def run(feeds):\n    return {'y': 2 * feeds['x']}\n")
    session = opened(load={"path": str(script), "format": "script"})
    assert works(session)
    script.unlink()
    (pid,) = session.pool.pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: not session.pool._slots[0].process.alive)
    with pytest.raises(BridgeError, match="FAILED"):
        session.run(feeds(), deadline=Deadline(LONG))


def test_an_answer_between_deaths_forgives_them(opened):
    session = opened()
    for _ in range(FAST.attempts + 1):
        with pytest.raises(WorkerDiedError):
            session.run(feeds(-9), deadline=Deadline(LONG))
        assert works(session)


def test_back_off_doubles_up_to_its_limit():
    delays = [Backoff().delay_s(n) for n in range(1, 12)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]


# ---------------------------------------------------------------- deadlines and cancels


def test_a_deadline_interrupts_and_keeps_the_worker(opened):
    session = opened(grace_s=LONG)
    pids = session.pool.pids
    with pytest.raises(BridgeTimeoutError):
        session.run(feeds(-2), deadline=Deadline(0.1))
    assert works(session)
    assert session.pool.pids == pids


def test_a_deadline_kills_a_worker_that_does_not_listen(opened):
    session = opened(grace_s=0.05)
    pids = session.pool.pids
    with pytest.raises(BridgeTimeoutError):
        session.run(feeds(-3), deadline=Deadline(0.1))
    assert works(session)
    assert session.pool.pids != pids
    assert gone(pids[0])


def test_deadlines_never_make_a_model_fail(opened):
    session = opened(grace_s=0.01)
    for _ in range(FAST.attempts + 1):
        with pytest.raises(BridgeTimeoutError):
            session.run(feeds(-3), deadline=Deadline(0.3))
    assert works(session)


def test_a_cancel_ends_a_call_in_flight(opened):
    session = opened(grace_s=LONG)
    pids = session.pool.pids
    deadline = Deadline(LONG)
    threading.Timer(0.1, deadline.cancel).start()
    with pytest.raises(CancelledError):
        session.run(feeds(-2), deadline=deadline)
    assert works(session)
    assert session.pool.pids == pids


def test_a_cancelled_deadline_sends_nothing(opened):
    session = opened()
    deadline = Deadline(LONG)
    deadline.cancel()
    with pytest.raises(CancelledError):
        session.run(feeds(), deadline=deadline)
    assert works(session)


def test_an_interrupt_between_calls_is_ignored(opened):
    session = opened()
    pids = session.pool.pids
    for _ in range(20):
        os.kill(pids[0], signal.SIGINT)
        assert works(session)
    assert session.pool.pids == pids


def test_lanes_of_one_process_run_at_once_and_are_cancelled_one_by_one(opened):
    session = opened("lanes", lanes=3, interrupt="control", grace_s=LONG)
    assert session.max_concurrency == 3
    pids = session.pool.pids
    deadlines = [Deadline(LONG) for _ in range(2)]
    threads = [threading.Thread(target=lambda d=d: raises(CancelledError, session, feeds(1), d)) for d in deadlines]
    for thread in threads:
        thread.start()
    until(lambda: len(session.pool._idle) == 1)
    assert session.run(feeds())["y"].tolist() == [[0, 0]]  # the third lane
    for deadline, left in zip(deadlines, (1, 0), strict=True):  # request ids count per lane: one cancel ends one call
        deadline.cancel()
        until(lambda n=left: sum(thread.is_alive() for thread in threads) == n)
        until(lambda n=left: len(session.pool._idle) == 3 - n)
    for _ in range(6):
        assert session.run(feeds(), deadline=Deadline(LONG))["y"].tolist() == [[0, 0]]
    assert session.pool.pids == pids


# ---------------------------------------------------------------- large frames


def test_feeds_too_large_for_a_frame_go_by_rows(opened):
    session = opened(max_payload=4096)
    x = np.arange(5000.0).reshape(2500, 2) + 1
    assert session.run({"x": x})["y"].tolist() == (2 * x).tolist()


def test_feeds_too_large_whose_rows_depend_on_each_other_are_refused(opened):
    symbol = Signature([TensorSpec("x", "float64", ("n", 2))], [TensorSpec("y", "float64", (None, 2))])
    session = opened(signature=symbol, max_payload=4096)
    assert works(session)
    with pytest.raises(InputError, match="4096"):
        session.run(feeds(1, rows=2500))
    assert works(session)


def test_eight_megabytes_come_back_bit_for_bit(opened):
    session = opened()
    x = np.random.default_rng(0).standard_normal((500_000, 2)) + 10
    assert session.run({"x": x}, deadline=Deadline(LONG))["y"].tobytes() == (2 * x).tobytes()


# ---------------------------------------------------------------- sharing, closing, forking


def test_equal_commands_share_a_process_and_keep_their_models_apart(tmp_path):
    sessions = []
    for factor in (3, 5):
        script = tmp_path / f"times_{factor}.py"
        script.write_text(f"def run(feeds):\n    return {{'y': {factor} * feeds['x']}}\n")
        load = {"path": str(script), "format": "script"}
        sessions.append(open_session(command(SCRIPT), load, signature=SIGNATURE, shared=True))
    three, five = sessions
    assert three.pool is five.pool
    assert [s.run(feeds(1))["y"][0, 0] for s in sessions] == [3.0, 5.0]
    (pid,) = three.pool.pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: not three.pool._slots[0].process.alive)
    assert [s.run(feeds(1))["y"][0, 0] for s in sessions] == [3.0, 5.0]
    three.close()
    assert five.run(feeds(1))["y"][0, 0] == 5.0
    (pid,) = five.pool.pids
    five.close()
    assert gone(pid)
    with pytest.raises(ClosedError):
        three.run(feeds())


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def test_close_leaves_no_process_no_descriptor_no_socket_no_thread(opened, monkeypatch):
    folder = tempfile.mkdtemp()
    monkeypatch.setattr(tempfile, "tempdir", folder)
    opened().close()  # what starts once, has started
    gc.collect()
    before = descriptors(), {t.ident for t in threading.enumerate()}
    session = opened(workers=2)
    until(lambda: len(session.pool.pids) == 2)
    pids = session.pool.pids
    with pytest.raises(WorkerDiedError):
        session.run(feeds(-9))
    assert works(session)
    with pytest.raises(BridgeTimeoutError):
        session.run(feeds(-2), deadline=Deadline(0.05))
    session.close()
    session.close()
    assert all(gone(pid) for pid in pids)
    until(lambda: {t.ident for t in threading.enumerate()} <= before[1])
    assert descriptors() - before[0] == set()
    os.rmdir(folder)  # empty
    with pytest.raises(ClosedError):
        session.run(feeds())


def test_close_ends_a_call_in_flight(opened):
    session = opened()
    caught = []
    thread = threading.Thread(target=lambda: caught.append(raises(ClosedError, session, feeds(-2))))
    thread.start()
    until(lambda: not session.pool._idle)
    session.close()
    thread.join()
    assert caught


def test_a_fork_may_not_use_the_parents_worker(opened):
    session = opened()
    assert works(session)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            session.run(feeds())
        except ClosedError:
            session.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pids = session.pool.pids
    assert works(session)
    assert session.pool.pids == pids


def test_a_fork_may_open_a_model_of_its_own(opened):
    assert works(opened())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            load = {"path": str(DOUBLES / "model.py"), "format": "script"}
            session = open_session(command(SCRIPT), load, signature=SIGNATURE)
            status = 0 if works(session) else 2
            session.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_PARENT = """
import sys
sys.path.insert(0, {tests!r})
import test_workers as t
session = t.open_session(t.command(t.SCRIPT), {{"path": str(t.DOUBLES / "model.py"), "format": "script"}}, signature=t.SIGNATURE)
print(session.pool.pids[0], flush=True)
session.run(t.feeds({what}))
sys.stdin.read()
"""


@pytest.mark.parametrize("what", [0, -2], ids=["idle", "busy"])
def test_a_worker_does_not_outlive_its_parent(what):
    code = _PARENT.format(tests=str(Path(__file__).parent), what=what)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
        parent.wait()
        if what == 0 or process_module.shutil.which("setpriv"):
            until(lambda: gone(pid) or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


def test_an_unclosed_session_ends_with_its_program():
    code = _PARENT.format(tests=str(Path(__file__).parent), what=0)
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, check=True, timeout=60)
    pid = int(done.stdout)
    until(lambda: gone(pid) or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


# ---------------------------------------------------------------- kill -9 under load


def _kill_under_load(session, kills: int, seed: int) -> dict[str, int]:
    """Ask from three threads while a fourth kills at random phases; count what came of every request."""
    stop, counts, lock = threading.Event(), {"answered": 0, "died": 0, "asked": 0}, threading.Lock()
    wrong: list[object] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            x = rng.uniform(1, 2, (int(rng.integers(1, 2000)), 2))
            with lock:
                counts["asked"] += 1
            try:
                y = session.run({"x": x}, deadline=Deadline(LONG))["y"]
            except WorkerDiedError:
                with lock:
                    counts["died"] += 1
            except BaseException as exc:
                wrong.append(exc)
                raise
            else:
                if y.tobytes() != (2 * x).tobytes():
                    wrong.append("a wrong answer")
                with lock:
                    counts["answered"] += 1

    threads = [threading.Thread(target=ask, args=(seed + i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    rng = random.Random(seed)
    for _ in range(kills):
        until(lambda: session.pool.pids or wrong)
        time.sleep(rng.uniform(0, 0.02))  # the phase
        answered = counts["answered"]
        for pid in session.pool.pids[:1]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: counts["answered"] > answered + 3 or wrong)  # noqa: B023 - used at once
    stop.set()
    for thread in threads:
        thread.join(LONG)
    assert not wrong
    return counts


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.full)])
def test_kills_under_load_lose_no_request_and_answer_nothing_wrong(opened, kills):
    session = opened(workers=2)
    counts = _kill_under_load(session, kills, seed=1)
    assert counts["answered"] + counts["died"] == counts["asked"]
    assert counts["died"] <= kills
    assert works(session)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "want"),
    [
        ("int64", ("rows",), np.array([1.0, 2.0]), np.array([1, 2])),
        ("float64", ("rows",), np.array([[1.0], [2.0]]), np.array([1.0, 2.0])),
        ("float64", ("rows", 1), np.array([1, 2], np.int32), np.array([[1.0], [2.0]])),
        ("string", ("rows",), np.array(["a", "bc"]), np.array(["a", "bc"], object)),
        ("float64", ("rows",), np.array([1.0, np.nan], object), np.array([1.0, np.nan])),
        ("bool", ("rows",), np.array([0, 1]), np.array([False, True])),
        ("float64", ("rows", 2), np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])),
    ],
)
def test_an_answer_is_fitted_where_no_value_changes(dtype, shape, value, want):
    signature = Signature([], [TensorSpec("y", dtype, shape)])
    got = fit_outputs(signature, {"y": value, "extra": 1}, wanted=None, rows=2, runtime="python")["y"]
    assert got.dtype == want.dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("dtype", "shape", "value"),
    [
        ("int64", ("rows",), np.array([1.5, 2.0])),
        ("int64", ("rows",), np.array([np.nan, 2.0])),
        ("float32", ("rows",), np.array([0.1, 2.0])),
        ("int32", ("rows",), np.array([2**40, 0])),
        ("float64", ("rows",), np.array([1.0, 2.0, 3.0])),
        ("float64", ("rows", 3), np.ones((2, 2))),
        ("float64", ("rows",), np.ones((2, 2))),
        ("float64", ("rows",), np.array(["a", "b"], object)),
        ("string", ("rows",), np.array([1.0, 2.0])),
        ("float64", ("rows",), np.array(["2020-01-01"] * 2, "M8[D]")),
    ],
)
def test_an_answer_that_does_not_fit_is_an_inference_error(dtype, shape, value):
    signature = Signature([], [TensorSpec("y", dtype, shape)])
    with pytest.raises(InferenceError, match="'y'"):
        fit_outputs(signature, {"y": value}, wanted=None, rows=2, runtime="python")
