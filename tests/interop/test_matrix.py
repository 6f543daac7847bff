"""Client {Python, R, JVM, tritonclient} x server {Python, R, JVM} over the cases of docs/interop.md, bit by bit.

`MLBRIDGE_WRITE_DOCS=1` also writes the table at the end of that page.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import r_host

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))  # the programs' own module
import vectors  # noqa: E402

VECTORS = ROOT / "proto" / "interop.json"
CASES = vectors.read(VECTORS)["cases"]
PAGE = ROOT / "docs" / "interop.md"
TOKENS = {"token": "the-right-token", "large-token": "t" * 4096}
JAR = ROOT / "src" / "mlbridge" / "_jvm" / "mlbridge-jvm.jar"
JAVA = ROOT / "jvm-bindings" / "interop"
R = ROOT / "src" / "mlbridge" / "_jvm" / "mlbridge-jvm.jar"
R = ROOT / "r-bindings" / "interop"
SERVERS, CLIENTS = ("python", "r", "jvm"), ("python", "r", "jvm", "tritonclient")
# What a language cannot say, by name: (client or server, case) -> why. Everything else must be right.
REFUSED: dict[tuple[str, str], str] = {}


def program(language: str, role: str) -> list[str]:
    """Return the command of a language's server or client, or skip where the language is not installed."""
    if language in ("python", "tritonclient"):
        return [sys.executable, str(HERE / (f"{role}.py" if language == "python" else "triton_client.py"))]
    if language == "r":
        if r_host.missing():
            pytest.skip(r_host.missing())
        return ["Rscript", str(R / f"{role}.R")]
    if shutil.which("javac") is None or not JAR.is_file():
        pytest.skip("a JDK is not installed, or the jar is not built: make jvm")
    return ["java", "-cp", f"{JAR}{os.pathsep}{_classes()}", role.title()]


@functools.cache
def _classes() -> str:
    """Compile the JVM's two programs."""
    folder = tempfile.mkdtemp(prefix="mlbridge-interop-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["javac", "-cp", str(JAR), "-d", folder, *map(str, sorted(JAVA.glob("*.java")))], check=True)
    return folder


@contextmanager
def serving(language: str, *arguments: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run a language's server; give its address and its process."""
    command = [*program(language, "server"), "--vectors", str(VECTORS), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=r_host.environment())
    try:
        for line in process.stdout:  # libraries may greet first
            if line.startswith("ready "):
                break
        else:
            pytest.fail(f"the {language} server ended with {process.wait()} before it was ready")
        yield line.split()[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def asked(language: str, address: str, names: list[str], *arguments: str) -> dict[str, dict]:
    """Run a language's client; return its line of every case."""
    command = [*program(language, "client"), "--vectors", str(VECTORS), "--target", address, *arguments]
    for name in names:
        command += ["--case", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=r_host.environment(), check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["case"] for line in lines] == names, done.stderr[-3000:]
    return {line["case"]: line for line in lines}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(made), *subject]
    subprocess.run(command, check=True, capture_output=True)
    return key, made


@pytest.fixture(scope="module", params=SERVERS)
def cells(request, certificate):
    """Ask one server by every client that is here: its plain cases, then those that need a server of their own."""
    server = request.param
    plain = [n for n, c in CASES.items() if "server" not in c]
    found: dict[str, dict[str, dict]] = {}
    clients = [c for c in CLIENTS if _here(c)]
    with serving(server) as (address, _):
        for client in clients:
            found[client] = asked(client, address, plain)
    for kind, token in TOKENS.items():
        names = [n for n, c in CASES.items() if c.get("server") == kind]
        with serving(server, "--token", token) as (address, _):
            for client in clients:
                for name in names:
                    found[client] |= asked(client, address, [name], "--token", CASES[name].get("token", token))
    key, made = certificate
    with serving(server, "--key", str(key), "--certificate", str(made)) as (address, _):
        for client in clients:
            found[client] |= asked(client, address, ["tls"], "--authority", str(made))
    for client in clients:
        found[client] |= _drained(server, client)
    return server, found


def _drained(server: str, client: str) -> dict[str, dict]:
    """Stop a server while a call is in flight."""
    with serving(server) as (address, process):
        command = [*program(client, "client"), "--vectors", str(VECTORS), "--target", address, "--case", "after", "--case", "drain"]
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=r_host.environment())
        assert json.loads(asking.stdout.readline())["code"] == "OK"  # it runs, and asks `drain` next
        try:
            asking.wait(2.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        line = json.loads(asking.communicate(timeout=60)[0].splitlines()[0])
        assert process.wait(30) == 0
    return {"drain": line}


def _here(language: str) -> bool:
    try:
        program(language, "client")
    except pytest.skip.Exception:
        return False
    return True


def verdict(server: str, client: str, case: dict, line: dict) -> str:
    """Return `ok`, `no: why` for a named refusal, or what is wrong."""
    why = REFUSED.get((server, case["name"])) or REFUSED.get((client, case["name"])) or line.get("skipped")
    if why is not None and (line.get("skipped") or line["code"] in ("UNIMPLEMENTED", "INVALID_ARGUMENT")):
        return f"no: {why}"
    if "error" in case:
        want = case["error"]
        if line["code"] != want["code"] or line.get("class", want["class"]) != want["class"]:
            return f"{line.get('code')} {line.get('class')}: {line.get('message', line.get('answers'))}"
        text = line["message"]
        return "ok" if all(w in text for w in want["says"]) and "/srv/models" not in text else f"says {text!r}"
    if line["code"] != "OK":
        return f"{line['code']}: {line['message']}"
    want = [vectors.expected(t) for t in case["answers"]]
    return "ok" if line["answers"] == want else f"{line['answers']} instead of {want}"


def test_every_cell_is_right_or_refused_by_name(cells):
    server, found = cells
    wrong = {
        f"{client} → {server}, {name}": told
        for client, lines in found.items()
        for name, line in lines.items()
        if (told := verdict(server, client, CASES[name], line)) != "ok" and not told.startswith("no: ")
    }
    if os.environ.get("MLBRIDGE_WRITE_DOCS"):
        _write(server, found)
    assert not wrong, "\n".join(f"{k}: {v[:400]}" for k, v in wrong.items())


def _write(server: str, found: dict[str, dict[str, dict]]) -> None:
    """Write one server's columns of the table into the page, under a heading of its own."""
    heading = f"## Asked: the {server} server\n"
    lines = [heading, "| case | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name, case in CASES.items():
        told = [verdict(server, client, case, found[client][name]) for client in found]
        lines.append(f"| `{name}` | " + " | ".join(t.replace("|", "/") for t in told) + " |")
    text = PAGE.read_text("utf-8")
    start = text.find(heading)
    if start >= 0:
        end = text.find("\n## ", start + 1)
        text = text[:start] + (text[end + 1 :] if end >= 0 else "")
    PAGE.write_text(text.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n", "utf-8")
