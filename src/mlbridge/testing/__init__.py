"""The conformance kit: what every runtime must do, for third parties too.

Subclass `ModelKit` in one test file, give `open_model` and `golden`, and run pytest. What a runtime cannot do is
declared in `quirks`, check number to reason. Rooms: `kit` (the checks), `doubles` (sessions for tests).
"""

from .doubles import FunctionSession, NothingSession
from .kit import ModelKit

__all__ = ["FunctionSession", "ModelKit", "NothingSession"]
