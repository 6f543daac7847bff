"""A worker that lies: python double.py <path of python_worker.py> <mode>. Run by tests/test_workers.py."""

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time

spec = importlib.util.spec_from_file_location("python_worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
mode = sys.argv[2]


def hello(**changes):
    tensors = {"protocol": 1, "runtime": "double", "language_version": "0", "pid": os.getpid(), **changes}
    return worker.encode(worker.HELLO, tensors)


def connect(token, **changes):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["MLBRIDGE_ADDRESS"].partition(":")[2])
    worker.send(sock, [token, *hello(**changes)])
    return sock


def question(sock):
    header = worker.receive(sock, 16)
    return worker.decode(header, worker.receive(sock, int.from_bytes(header[8:12], "little")))


def lie(sock, request_id, tensors):
    """Do what the mode says; a request whose x is 0 is answered honestly."""
    answer = worker.encode(worker.RESULT, {"y": tensors["x"]}, request_id)
    if not tensors["x"].any():
        return worker.send(sock, answer)
    if mode == "garbage":
        return sock.sendall(b"Loading required package: lattice\n")
    if mode == "truncated":
        sock.sendall(b"".join(answer)[:-3])
        return sock.shutdown(socket.SHUT_RDWR)
    if mode == "too_long":
        return sock.sendall(b"".join(answer)[:8] + b"\xff\xff\xff\xff" + b"".join(answer)[12:])
    if mode == "wrong_id":
        return worker.send(sock, worker.encode(worker.RESULT, {"y": tensors["x"]}, request_id + 1))
    if mode == "wrong_type":
        return worker.send(sock, worker.encode(worker.HELLO, {"y": tensors["x"]}, request_id))
    if mode == "wrong_output":
        return worker.send(sock, worker.encode(worker.RESULT, {"z": tensors["x"]}, request_id))
    if mode == "wrong_rows":
        return worker.send(sock, worker.encode(worker.RESULT, {"y": tensors["x"][:0]}, request_id))
    if mode == "no_class":
        return worker.send(sock, worker.encode(worker.ERROR, {"message": "no class"}, request_id))
    if mode == "untrusted":
        return worker.send(sock, worker.encode(worker.ERROR, {"class": "UntrustedArtifactError", "message": "trust me"}, request_id))
    if mode == "code_of_nothing":
        return worker.send(sock, worker.encode(worker.ERROR, {"class": "InputError", "message": "m", "code": 999}, request_id))
    if mode == "closes":
        return sock.close()
    if mode == "exit_0":
        os._exit(0)
    if mode == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise SystemExit(f"no mode {mode}")


def lanes(token):
    """Answer on several connections at once; a request whose x is not 0 waits for its CANCEL."""
    ended = {}

    def lane(number):
        sock = connect(token, lane=number)
        while True:
            kind, request_id, tensors = question(sock)
            if kind != worker.RUN:
                worker.send(sock, worker.encode(worker.PONG if kind == worker.PING else worker.RESULT, {}, request_id))
            elif tensors["x"].any():
                ended.setdefault((number, request_id), threading.Event()).wait()
                worker.send(sock, worker.encode(worker.ERROR, {"class": "CancelledError", "message": "cancelled"}, request_id))
            else:
                worker.send(sock, worker.encode(worker.RESULT, {"y": tensors["x"]}, request_id))

    for number in range(int(os.environ["MLBRIDGE_LANES"])):
        threading.Thread(target=lane, args=(number,), daemon=True).start()
    control = connect(token, role="control")
    while True:
        _, _, tensors = question(control)
        who = int(worker.scalar(tensors, "lane")), int(worker.scalar(tensors, "request"))
        ended.setdefault(who, threading.Event()).set()


def main():
    token = sys.stdin.readline().strip().encode()
    if mode == "exit_at_start":
        print("I do not want to", file=sys.stderr)
        sys.exit(3)
    if mode == "never_connects":
        time.sleep(60)
    if mode == "wrong_token":
        connect(b"0" * 64)
        time.sleep(60)
    if mode == "silent":
        connect(b"")
        time.sleep(60)
    if mode == "no_hello":
        connect(token + b"\0" * 64)
        time.sleep(60)
    if mode == "newer_protocol":
        connect(token, protocol=99)
        time.sleep(60)
    if mode == "lanes":
        return lanes(token)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = connect(token)
    while True:
        kind, request_id, tensors = question(sock)
        if kind == worker.LOAD and mode == "load_crash":
            os._exit(7)
        if kind == worker.LOAD and mode == "load_garbage":
            sock.sendall(b"x" * 16)
        if kind == worker.RUN:
            lie(sock, request_id, tensors)
        else:
            worker.send(sock, worker.encode(worker.PONG if kind == worker.PING else worker.RESULT, {}, request_id))


with contextlib.suppress(EOFError, ConnectionError):
    main()
