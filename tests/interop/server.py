"""Python's server of the matrix: the models of the vectors, on mlbridge's own server. See docs/interop.md."""

from __future__ import annotations

import argparse
import signal
import time

import vectors

import mlbridge as mb
from mlbridge.interfaces import UNBOUNDED


class Interop:
    """Answers its inputs, at once, later, or not at all."""

    device, max_concurrency = "cpu", UNBOUNDED

    def __init__(self, model: dict) -> None:
        self.signature, self._does = mb.Signature.from_dict(model["signature"]), model["does"]

    def run(self, feeds, /, *, outputs=None, deadline=None):
        """Echo, after x[0] seconds where it sleeps; a failure is the model's own."""
        if self._does == "fail":
            raise RuntimeError("a secret of /srv/models")
        end = time.monotonic() + float(feeds["x"][0]) if self._does == "sleep" else 0.0
        while time.monotonic() < end:
            if deadline is not None:
                deadline.check()
            time.sleep(0.01)
        return {name: feeds[name].copy() for name in outputs or feeds}

    def close(self):
        """Own nothing."""


def main() -> None:
    """Serve until SIGTERM, then drain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--port", default="0")
    parser.add_argument("--token")
    parser.add_argument("--key")
    parser.add_argument("--certificate")
    given = parser.parse_args()
    models = {m["name"]: mb.Model(Interop(m), name=m["name"]) for m in vectors.read(given.vectors)["models"]}
    tls = (given.key, given.certificate) if given.key else None
    server = mb.serve(models, grpc=f"127.0.0.1:{given.port}", token=given.token, tls=tls)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    print(f"ready {server.addresses['grpc']}", flush=True)
    server.wait()


if __name__ == "__main__":
    main()
