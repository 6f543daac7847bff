"""`mlbridge serve` as an operator runs it: a process of its own, signals, TLS and a token."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import mlbridge as mb
from mlbridge.errors import AccessError

X = np.random.default_rng(0).normal(size=(40, 3))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "a.mlb"
    with mb.wrap(LogisticRegression().fit(X, X[:, 0] > 0), sample=X) as m:
        m.save(path)
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    words = (
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    try:
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=folder)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def _serving(*words):
    command = [sys.executable, "-m", "mlbridge.cli", "serve", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        try:
            seen = []
            for line in process.stderr:
                seen.append(line)
                if line.startswith("serving"):
                    break
            assert process.poll() is None, "".join(seen)
            yield process, dict(re.findall(r"(\w+)=(\S+:\d+)", line))
        finally:
            process.kill()


def test_sigterm_drains_and_exits_0(package):
    with _serving(f"churn={package}", f"churn@2={package}", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0") as (process, at):
        assert set(at) == {"grpc", "http"}
        with mb.load(f"grpc://{at['grpc']}/churn@2") as m:
            assert m.predict(X)["label"].shape == (40,)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_tls_and_a_token_from_files(package, certificate, tmp_path):
    cert, key = certificate
    (tmp_path / "token").write_text("a-token-of-length\n")
    words = ["--tls-cert", cert, "--tls-key", key, "--token-file", tmp_path / "token"]
    with _serving(f"churn={package}", "--grpc", "127.0.0.1:0", *words) as (_, at):
        uri = f"grpcs://localhost:{at['grpc'].rpartition(':')[2]}/churn"
        with mb.load(uri, options={"grpc": {"root_certificates": str(cert), "token": "a-token-of-length"}}) as m:
            assert m.predict(X[:1])["label"].shape == (1,)
        with pytest.raises(AccessError):
            mb.load(uri, options={"grpc": {"root_certificates": str(cert), "token": "another-token"}})


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["churn"], 2),
        (["churn=nothing.mlb"], 65),
        (["churn={p}", "--tls-cert", "{p}"], 2),
        (["churn={p}", "churn@1={p}"], 2),
        (["churn={p}", "--grpc", "0.0.0.0:0"], 2),
    ],
    ids=["no path", "no file", "a certificate without its key", "a version twice", "wide open"],
)
def test_what_cannot_be_served_exits_by_who_can_fix_it(package, words, code):
    command = [sys.executable, "-m", "mlbridge.cli", "serve", *[w.format(p=package) for w in words]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr


def test_http_alone_opens_no_grpc(package):
    with _serving(f"churn={package}", "--http", "127.0.0.1:0") as (_, at):
        assert set(at) == {"http"}
