"""`mlbridge serve` as an operator runs it: a process of its own, signals, TLS and a token."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from sklearn.linear_model import LogisticRegression
from tritonclient.utils import InferenceServerException

import mlbridge as mb
from mlbridge.cli import main
from mlbridge.errors import AccessError, BridgeError

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
        (["churn={p}", "--tls-client-ca", "{p}"], 2),
        (["churn={p}", "--operator-token-file", "{p}"], 2),
        (["churn={p}", "--default", "churn"], 2),
        (["churn={p}", "--default", "churn=7"], 2),
        (["churn={p}", "--default", "chum=1"], 2),
        (["churn={p}", "--max-queue", "0"], 2),
    ],
    ids=[
        "no path",
        "no file",
        "a certificate without its key",
        "a version twice",
        "wide open",
        "an authority without a certificate",
        "an operator's token without a listener",
        "a default without its version",
        "a default that is not served",
        "a default of no model",
        "no room to wait",
    ],
)
def test_what_cannot_be_served_exits_by_who_can_fix_it(package, words, code):
    command = [sys.executable, "-m", "mlbridge.cli", "serve", *[w.format(p=package) for w in words]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr


def test_clients_without_a_certificate_of_the_authority_are_not_let_in(package, certificates):
    words = ["--tls-cert", certificates["server.pem"], "--tls-key", certificates["server.key"], "--tls-client-ca", certificates["ca.pem"]]
    with _serving(f"churn={package}", "--grpc", "0.0.0.0:0", *words) as (_, at):
        uri = f"grpcs://localhost:{at['grpc'].rpartition(':')[2]}/churn"
        shown = {"root_certificates": certificates["ca.pem"], "connect_timeout_s": 5.0}
        with pytest.raises(BridgeError):
            mb.load(uri, options={"grpc": shown})
        shown |= {"client_key": certificates["client.key"], "client_certificate": certificates["client.pem"]}
        with mb.load(uri, options={"grpc": shown}) as m:
            assert m.predict(X[:1])["label"].shape == (1,)


def test_the_operator_unloads_and_loads_on_a_listener_and_with_a_token_of_its_own(package, tmp_path):
    (tmp_path / "token").write_text("the-operators-own\n")
    words = ["--grpc", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--operator-token-file", tmp_path / "token"]
    with _serving(f"churn={package}", *words) as (_, at):
        with tritonclient.InferenceServerClient(at["grpc"]) as c, pytest.raises(InferenceServerException, match="not offered here"):
            c.unload_model("churn")
        with tritonclient.InferenceServerClient(at["operator"]) as c:
            with pytest.raises(InferenceServerException, match="no token"):
                c.unload_model("churn")
            shown = {"authorization": "Bearer the-operators-own"}
            c.unload_model("churn", headers=shown)
            assert not c.is_model_ready("churn")
            c.load_model("churn", headers=shown)
            assert c.is_model_ready("churn")


def test_the_default_version_is_the_one_named_and_batching_can_be_off(package, tmp_path):
    words = ["--default", "churn=1", "--no-batching", "--max-queue", "7", "--write-signature", "--grpc", "127.0.0.1:0"]
    with _serving(f"churn={package}", f"churn@2={package}", *words) as (_, at), tritonclient.InferenceServerClient(at["grpc"]) as c:
        asked = tritonclient.InferInput("features", [1, 3], "FP64")
        asked.set_data_from_numpy(X[:1])
        assert c.infer("churn", [asked]).get_response().model_version == "1"
        assert c.infer("churn", [asked], model_version="2").get_response().model_version == "2"


def test_the_token_may_come_from_the_environment(package, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_TOKEN", "from-the-environment")
    with _serving(f"churn={package}", "--grpc", "127.0.0.1:0") as (_, at):
        mb.load(f"grpc://{at['grpc']}/churn").close()  # the client reads the same variable
        with pytest.raises(AccessError):
            mb.load(f"grpc://{at['grpc']}/churn", options={"grpc": {"token": "another-token"}})


def test_every_setting_of_serve_is_an_option_with_the_same_default():
    from mlbridge.cli.serving import settings_of
    from mlbridge.server import Settings

    given = main.commands["serve"].make_context("serve", ["churn=a.mlb"]).params
    del given["models"]
    settings = settings_of(given)
    assert settings.pop("grace_s") == 30.0
    assert settings.pop("default") == {}  # as good as none
    assert settings == {f.name: f.default for f in fields(Settings) if f.name != "default"}


def test_http_alone_opens_no_grpc(package):
    with _serving(f"churn={package}", "--http", "127.0.0.1:0") as (_, at):
        assert set(at) == {"http"}
