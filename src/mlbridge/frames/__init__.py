"""The frame codec: named arrays to bytes and back, for workers in any language and for golden samples.

Rooms: `codec` (one frame as bytes) · `layout` (a frame like the last) · `links` (frames over sockets, with deadlines). The byte layout and the meaning of
each frame are in `proto/FRAMES.md`; `proto/vectors/` holds frames that every language reads in its tests. Not here:
processes (`workers`). Called by `workers`, `package` and the runtimes; who wants links imports the file: it loads the
sockets, which packages do without.

Files and buffers that are malformed raise ArtifactError; the same bytes from a socket raise BridgeError.
"""

from .codec import FRAME_VERSION, MAX_PAYLOAD, Frame, FrameType, decode_frame, encode_frame, encode_parts
from .layout import Layout

__all__ = [
    "FRAME_VERSION",
    "MAX_PAYLOAD",
    "Frame",
    "FrameType",
    "Layout",
    "decode_frame",
    "encode_frame",
    "encode_parts",
]
