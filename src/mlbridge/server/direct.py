"""Unary calls with fewer hand-offs than grpcio makes of them.

grpcio's polling thread gives a call to a thread of the pool, which asks for the message and waits until the polling
thread brings it: threads wake each other three times a call, at more than a small model costs. Here the polling thread
takes the message before it gives the call away, and what a handler can answer at once it answers there and then.

This knows grpcio's inside. Where that is not as expected, calls go the usual way, which answers the same.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from grpc import _server
from grpc._cython import cygrpc

from .crew import Crew

__all__ = ["Direct", "fits"]

_LOG = logging.getLogger("mlbridge.server")
_EXPECTED = {  # what is used of grpcio's inside, and the parameters it must have
    "_unary_response_in_pool": "rpc_event state behavior argument_thunk request_deserializer response_serializer",
    "_unary_request": "rpc_event state request_deserializer",
    "_receive_message": "state call request_deserializer",
    "_status": "rpc_event state serialized_response",
    "_abort": "state call code details",
}


def fits() -> bool:
    """Whether the grpcio that is installed has the inside this was written for."""
    try:
        same = all(" ".join(inspect.signature(getattr(_server, name)).parameters) == want for name, want in _EXPECTED.items())
        return same and all(map(callable, (_server._RECEIVE_MESSAGE_TOKEN.encode, cygrpc.ReceiveMessageOperation, _server._CLOSED.encode)))
    except (AttributeError, ValueError, TypeError):
        return False


class Direct(Executor):
    """The executor grpcio gets: unary calls are begun here, everything else is the crew's.

    A handler may have `at_once(message, deadline) -> answer or None`, called on the polling thread, where it must neither
    wait nor take long, and then `failed(exc, context)`, called in its place on a thread of the crew if `at_once` raised.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._unary = _server._unary_response_in_pool if fits() else None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Begin a call; returns what tells its end."""
        if args and args[0] is self._unary and args[4].__qualname__.startswith("_unary_request."):
            return _Call(self._crew, fn, *args[1:])
        return self._crew.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls."""
        self._crew.shutdown(wait, cancel_futures=cancel_futures)


class _Call:
    """One unary call, from its message to its answer; to grpcio it is the future of it."""

    __slots__ = ("_args", "_behavior", "_crew", "_enter", "_event", "_state", "_take", "_tell")

    def __init__(self, crew: Crew, enter: Callable, event: Any, state: Any, behavior: Any, ask: Callable, *serializers: Any) -> None:
        self._crew, self._enter, self._event, self._state, self._behavior = crew, enter, event, state, behavior
        self._args = serializers
        self._take = _server._receive_message(state, event.call, serializers[0])
        with state.condition:
            event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._on_message)
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)

    def add_done_callback(self, tell: Callable[[Any], object]) -> None:
        """Be told when the call has ended; grpcio asks before it polls again, so before there is a message."""
        self._tell = tell

    def _on_message(self, event: Any) -> Any:
        """Go on with the message, on the polling thread."""
        outcome = self._take(event)
        state = self._state
        message, state.request = state.request, None
        try:
            if message is None:
                self._without_message()
            elif not self._at_once(message):
                self._crew.submit(self._in_crew, message)
                return outcome
        except Exception:  # noqa: BLE001 - whatever it is, the next calls need this thread
            _LOG.exception("a call could not be begun")
            with state.condition:
                _server._abort(state, self._event.call, cygrpc.StatusCode.internal, b"")
        self._tell(self)
        return outcome

    def _without_message(self) -> None:
        state = self._state
        with state.condition:
            if state.client is _server._CLOSED and not state.statused:
                _server._abort(state, self._event.call, cygrpc.StatusCode.unimplemented, b"the call needs exactly one message")

    def _at_once(self, message: Any) -> bool:
        at_once = getattr(self._behavior, "at_once", None)
        if at_once is None:
            return False
        try:
            answer = at_once(message, self._event.call_details.deadline)
        except Exception as exc:  # noqa: BLE001 - the handler's own way of failing needs a context
            failed, raised = self._behavior.failed, exc
            self._behavior = lambda message, context: failed(raised, context)
            return False
        if answer is None:
            return False
        _server._status(self._event, self._state, answer)
        return True

    def _in_crew(self, message: Any) -> None:
        try:
            self._enter(_server._unary_response_in_pool, self._event, self._state, self._behavior, lambda: message, *self._args)
        finally:
            self._tell(self)
