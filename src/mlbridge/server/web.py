"""Web: uvicorn, which carries REST, on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from ..errors import UnavailableError
from .access import Tls

__all__ = ["Web"]


class Web:
    """An HTTP listener of an ASGI application, answering from the moment it is made."""

    def __init__(self, app: Any, host: str, port: int, tls: Tls | None) -> None:
        import uvicorn

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns Nagle off only where it sees TCP
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(1024)  # before uvicorn is up: whoever knows the address may connect
        except OSError as exc:
            self._socket.close()
            raise UnavailableError(f"cannot listen on {host}:{port}: {exc.strerror}", hint="is another server using the port?") from exc
        self.port = self._socket.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        secure: dict[str, Any] = {}
        if tls is not None:
            secure = {"ssl_keyfile": tls.key, "ssl_certfile": tls.certificate}
            if tls.client_authority:
                import ssl

                secure |= {"ssl_ca_certs": tls.client_authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=1024,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 << 10,
            http="h11",
            ws="none",
            lifespan="off",
            **secure,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="mlbridge-http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        """Close the listener once its calls have ended, or after five seconds."""
        self._server.should_exit = True
        self._thread.join(5.0)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(5.0)
        self._socket.close()
