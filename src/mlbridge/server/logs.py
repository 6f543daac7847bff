"""Structured logs: one JSON object a line, with the correlation ids clients get."""

from __future__ import annotations

import json
import logging
import time

__all__ = ["JsonFormatter", "log_to_stderr"]

_FIELDS = ("model", "version", "correlation_id", "address")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        out = {"time": stamp, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        out |= {k: v for k in _FIELDS if (v := getattr(record, k, None)) is not None}
        if record.exc_info:
            out["exception"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=False)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write mlbridge's logs to stderr as JSON lines; for processes that are servers."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("mlbridge")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
