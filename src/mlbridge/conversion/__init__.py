"""Conversion is verified or it is not trusted.

Rooms: `graph` (the small writer of ONNX graphs that converters share), `inlining` (one graph laid into another), `adopt` (an exporter's graph made ours), `verification`
(parity, probes, report), `kept` (what was verified once), `routes` (which implementation runs, and why). Converters themselves are the frameworks' (`frameworks/`).
"""
