"""Models served on the Open Inference Protocol v2 over gRPC and REST.

Rooms: `host` (Server: start, drain, stop), `service` (what the calls do), `transport` (gRPC), `rest` and `json_tensors`
(REST), `codec` (messages and arrays of one model), `batching` and `timing` (who runs when), `repository` (what is
served), `access` (who may), `replies` (errors as clients see them), `statistics`, `metrics`, `tracing`, `logs`.
"""

from .host import Server, run, serve

__all__ = ["Server", "run", "serve"]
