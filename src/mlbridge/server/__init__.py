"""Models served on the Open Inference Protocol v2 over gRPC and REST.

Rooms: `settings` (all that can be told), `host` (Server: start, drain, stop), `service` (what the calls do),
`transport`, `direct` and `crew` (gRPC, the begin of a call, its threads), `rest`, `json_tensors` and `web` (REST), `caller` (who asks), `codec` and
`shortcuts` (messages and arrays of one model), `batching` and `timing` (who runs when), `repository` (what is served),
`access` (who may), `replies` (errors as clients see them), `statistics`, `memory`, `metrics`, `tracing`, `logs`.
"""

from .host import Server, run, serve
from .settings import Settings

__all__ = ["Server", "Settings", "run", "serve"]
