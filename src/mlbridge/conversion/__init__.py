"""Conversion is verified or it is not trusted.

Rooms: `graph` (the small writer of ONNX graphs that converters share), `verification` (parity, probes, report),
`routes` (which implementation runs, and why). Converters themselves are the frameworks' (`frameworks/`).
"""
