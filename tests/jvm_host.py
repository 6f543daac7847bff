"""The JVM's server as a process of its own, for tests in Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mlbridge.runtimes.jvm.command import JAR

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "jvm-bindings/examples/target/mlbridge-examples-0.1.0.jar"
ONNXRUNTIME = sorted(Path.home().glob(".m2/repository/com/microsoft/onnxruntime/onnxruntime/*/onnxruntime-*.jar"))
_MAIN = "dev.mlbridge.server.Main"
_FLAGS = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]  # up in half a second


def example(name: str) -> str:
    """Return the URI of an example class."""
    return f"jvm:{EXAMPLES}#dev.mlbridge.examples.{name}"


class Host:
    """`java … serve`, up once made; its log is a file."""

    def __init__(
        self, folder: Path, *arguments: str, classpath: str = str(JAR), launch=None, address: str = "127.0.0.1:0", environment=None
    ) -> None:
        self.log = folder / "host.log"
        command = [*(launch or ["java", *_FLAGS, "-cp", classpath, _MAIN]), "serve", "--trust", "code", "--grpc", address, *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("serving on "):
            self.process.wait(60)
            raise AssertionError(f"the host did not start: {line}{self.log.read_text()}")
        self.address = line.removeprefix("serving on ").strip()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.address.rpartition(":")[2])

    def uri(self, model: str) -> str:
        """Return the URI of a model it serves."""
        return f"grpc://{self.address}/{model}"

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
