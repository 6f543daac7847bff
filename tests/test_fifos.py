"""Two FIFOs as a connection: what `frames.links` and the pool expect of a socket, and how it ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from mlbridge.errors import BridgeError, BridgeTimeoutError
from mlbridge.frames import FrameType, decode_frame, encode_frame, encode_parts
from mlbridge.frames.links import read_frame, write_parts
from mlbridge.interfaces import Deadline
from mlbridge.workers import fifo

pytestmark = pytest.mark.skipif(not fifo.AVAILABLE, reason="named pipes are used on Linux only")
TOKEN = b"0123456789abcdef"


class _Worker:
    """The other end, as R opens it."""

    def __init__(self, folder: Path) -> None:
        self.to = (folder / "answers").open("wb", buffering=0)
        self.source = (folder / "requests").open("rb", buffering=0)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.source.read(size - len(data))
        return data

    def close(self) -> None:
        self.to.close()
        self.source.close()


@pytest.fixture
def ends(tmp_path):
    fifos = fifo.Fifos(tmp_path)
    worker = _Worker(tmp_path)
    worker.to.write(TOKEN)
    assert list(fifos.guests(TOKEN, Deadline(5.0), lambda: True)) == [fifos]
    yield fifos, worker
    fifos.close()
    worker.close()


def _in_background(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_frames_cross_both_ways_whole_however_large(ends):
    fifos, worker = ends
    tensors = {"x": np.arange(600_000.0).reshape(-1, 3), "s": np.array(["ä", None], object)}
    frame = encode_frame(FrameType.RUN, tensors, request_id=7)
    got = []
    there = _in_background(lambda: (got.append(worker.read(len(frame))), worker.to.write(frame)))
    write_parts(fifos, encode_parts(FrameType.RUN, tensors, request_id=7))
    back = read_frame(fifos)
    there.join()
    np.testing.assert_array_equal(decode_frame(got[0]).tensors["x"], tensors["x"])
    np.testing.assert_array_equal(back.tensors["x"], tensors["x"])
    assert back.tensors["s"].tolist() == ["ä", None]


def test_another_token_is_refused(tmp_path):
    fifos = fifo.Fifos(tmp_path)
    worker = _Worker(tmp_path)
    worker.to.write(TOKEN[::-1])
    with pytest.raises(BridgeError, match="token"):
        next(fifos.guests(TOKEN, Deadline(5.0), lambda: True))
    fifos.close()
    worker.close()


def test_a_worker_that_ends_before_it_connects_is_told(tmp_path):
    fifos = fifo.Fifos(tmp_path)
    with pytest.raises(BridgeError, match="before it connected"):
        next(fifos.guests(TOKEN, Deadline(5.0), lambda: False))
    fifos.close()
    fifos.close()  # harmless


def test_what_is_sent_to_a_dead_worker_is_refused(ends):
    fifos, worker = ends
    worker.close()
    with pytest.raises(BridgeError, match="sending"):
        write_parts(fifos, [b"question"])
    with pytest.raises(BridgeError, match="closed the link"):
        read_frame(fifos)


def test_hanging_up_wakes_who_waits_and_ends_the_worker(ends):
    fifos, worker = ends
    told = []

    def wait() -> None:
        try:
            read_frame(fifos)
        except BridgeError as exc:
            told.append(exc)

    waiting = _in_background(wait)
    fifos.shutdown(2)
    waiting.join(5.0)
    assert len(told) == 1
    assert worker.source.read(1) == b""
    write_parts(fifos, [b"into nothing"])  # the descriptor is no other file's


def test_a_deadline_ends_the_wait_for_an_answer(ends):
    with pytest.raises(BridgeTimeoutError):
        read_frame(ends[0], deadline=Deadline(0.05))


def test_a_deadline_ends_the_wait_for_room(ends):
    with pytest.raises(BridgeTimeoutError):
        write_parts(ends[0], [bytes(8 << 20)], deadline=Deadline(0.05))


def test_no_program_started_here_holds_an_end(ends):
    fifos, _ = ends
    assert not os.get_inheritable(fifos.fileno())
    assert not os.get_inheritable(fifos.sending_fileno())
