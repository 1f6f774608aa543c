"""One connection to the daemon that survives its restarts: calls, notifications, and requests of the daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from typing import Any, Awaitable, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from .errors import ConnectionLost, PawlError, error_of, from_object
from .repeatable import NEVER_REPEATED, REPEATABLE_METHODS
from .socket_path import MAX_SOCKET_PATH_BYTES

logger = logging.getLogger("pawl")

FIRST_PAUSE_S = 0.01
MAX_PAUSE_S = 0.5
# A connection that has lasted so long works, even if nothing was answered on it.
WORKING_S = 1.0
MAX_REPLY_BYTES = 256 * 1024 * 1024

Params = Mapping[str, Any]
Listener = Callable[[Dict[str, Any]], None]
Handler = Callable[[Dict[str, Any]], Awaitable[Any]]


class RequestFailure(Exception):
    """Raised by the handler of a request of the daemon, to choose the error object that answers it."""

    def __init__(self, code: int, message: str, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **only_given({"data": data})}


class Watcher:
    """Told of connections that come and go."""

    def connected(self) -> None:
        """There is a connection again."""

    def disconnected(self) -> None:
        """There is none any more, or connecting was tried and nobody listens."""

    def closed(self) -> None:
        """The client was closed for good."""


def only_given(params: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def is_repeatable(method: str, params: Params) -> bool:
    """True if a request may be sent again when nobody knows whether it took effect."""
    rule = REPEATABLE_METHODS.get(method)
    if rule is None or rule == ():
        return rule is not None
    key, *of_each = rule
    elements = params.get(of_each[0]) if of_each else [params]
    return isinstance(elements, list) and all(
        isinstance(each, dict)
        and each.get(key) is not None
        and not any(each.get(param) in values for param, values in NEVER_REPEATED.items())
        for each in elements
    )


def to_line(message: Mapping[str, Any]) -> bytes:
    """The line of a message; raises `PawlError` `invalid_params` for what cannot be JSON in UTF-8."""
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        what = message.get("method", "the answer")
        raise error_of("invalid_params", f"The params of {what} cannot be JSON: {error}.") from error


class _Call:
    """A call that has no answer yet."""

    def __init__(self, id: int, method: str, params: Dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.line = to_line({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        self.repeatable = is_repeatable(method, params)
        self.future: asyncio.Future[Any] = loop.create_future()
        self.started_at = self.waits_since = loop.time()
        self.wait_s = params["waitMs"] / 1000 if isinstance(params.get("waitMs"), int) else 0.0
        self.sent = False
        # True if the request was sent on an earlier connection and may have been performed there.
        self.may_have_taken_effect = False

    def shorten_wait(self, now: float) -> None:
        """Makes a request that is sent again wait no longer than its caller does."""
        if self.wait_s > 0:
            left_ms = max(0, round(1000 * (self.started_at + self.wait_s - now)))
            params = {**self.params, "waitMs": left_ms}
            self.line = to_line({"jsonrpc": "2.0", "id": self.id, "method": self.method, "params": params})

    def reject(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def lose(self, message: str) -> None:
        effect = self.may_have_taken_effect or self.sent
        self.reject(ConnectionLost(message, self.method, may_have_taken_effect=effect))


class _Socket(asyncio.Protocol):
    """Lines in, lines out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._scanned = 0
        self._ended = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        begin = 0
        while (end := buffer.find(b"\n", max(begin, self._scanned))) >= 0:
            line = bytes(buffer[begin:end])
            begin = end + 1
            if line.strip():
                self._connection._received(line, self)
        del buffer[:begin]
        self._scanned = len(buffer)
        if len(buffer) > MAX_REPLY_BYTES:
            self.transport.abort()

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, error: Optional[Exception]) -> None:
        in_order = self._ended or isinstance(error, (ConnectionResetError, BrokenPipeError))
        self._connection._lost(self, in_order and not self._buffer)


class Connection:
    """`up`: requests are sent at once. `leaving`: the daemon performs nothing more on this connection, answers on their
    way are still read. `down`: while a request waits, or somebody watches, connecting is tried with growing pauses.
    `closed`: for good.

    Belongs to one event loop. Not safe for other threads.
    """

    def __init__(self, path: str, reconnect_s: float = 30.0) -> None:
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH_BYTES:
            too_long = f"The socket path {path} has {length} bytes; the kernel takes at most {MAX_SOCKET_PATH_BYTES}."
            raise error_of("invalid_params", too_long)
        self.path = path
        self.state = "down"
        self.handlers: Dict[str, Handler] = {}
        self._reconnect_s = reconnect_s
        self._loop = asyncio.get_running_loop()
        self._socket: Optional[_Socket] = None
        self._pending: Dict[int, _Call] = {}
        # Calls whose callers have gone: what they are granted is given back.
        self._given_up: Dict[int, str] = {}
        self._next_id = 1
        self._listeners: Dict[str, List[Listener]] = {}
        self._watchers: List[Watcher] = []
        self._tasks: Set[asyncio.Future[Any]] = set()
        self._connecting = False
        self._pause_s = 0.0
        self._opened_at = 0.0
        self._answered = False

    async def open(self) -> None:
        """Connects once; raises the system's error."""
        _, socket = await self._loop.create_unix_connection(lambda: _Socket(self), self.path)
        if self.state == "closed":
            socket.transport.abort()
            raise ConnectionLost("The client was closed while it was connecting.")
        self._socket, self.state, self._opened_at, self._answered = socket, "up", self._loop.time(), False
        for call in list(self._pending.values()):
            call.shorten_wait(self._opened_at)
            call.sent = self._write(call.line)
        for watcher in list(self._watchers):
            watcher.connected()

    async def call(self, method: str, params: Optional[Params] = None) -> Any:
        """Sends a request and returns its result; raises `PawlError` or `ConnectionLost`.

        If the task is cancelled, nobody knows whether the request took effect: a wait is ended at the daemon, and a
        claim or lease that is granted all the same is given back.
        """
        if self.state == "closed":
            raise ConnectionLost("The client is closed.", method)
        call = _Call(self._next_id, method, dict(params or {}), self._loop)
        self._next_id += 1
        self._pending[call.id] = call
        if self.state == "up":
            call.sent = self._write(call.line)
        else:
            self._reconnect()
        try:
            return await call.future
        except asyncio.CancelledError:
            self._give_up(call)
            raise

    def on(self, method: str, listener: Listener) -> Callable[[], None]:
        """Has a listener called with the params of each notification, until the returned function is called."""
        listeners = self._listeners.setdefault(method, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tells of connections, and keeps connecting although no request waits; returns how to end that."""
        self._watchers.append(watcher)
        self._reconnect()
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def start(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Runs something in the background until the client is closed."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def try_call(self, method: str, params: Params) -> None:
        """A call whose failure is of no account: what it would end ends by its time."""
        try:
            await self.call(method, params)
        except (PawlError, ConnectionLost):
            pass

    async def close(self) -> None:
        """Closes for good. Calls without an answer raise `ConnectionLost`."""
        if self.state == "closed":
            return
        self.state = "closed"
        if self._socket is not None:
            self._socket.transport.close()
        for call in self._pending.values():
            call.lose("The client was closed before the answer came.")
        self._pending.clear()
        for watcher in list(self._watchers):
            watcher.closed()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0)

    def give_back(self, method: str, result: Any) -> None:
        """Gives back what a method has granted to somebody who is not there any more."""
        for undo, params in _undone(method, result):
            self.start(self.try_call(undo, params))

    def _write(self, line: bytes) -> bool:
        if self._socket is None or self._socket.transport.is_closing():
            return False
        self._socket.transport.write(line)
        return True

    def _give_up(self, call: _Call) -> None:
        if self._pending.pop(call.id, None) is None:
            # The answer had come already.
            if call.future.done() and not call.future.cancelled() and call.future.exception() is None:
                self.give_back(call.method, call.future.result())
        elif call.sent and self.state in ("up", "leaving"):
            self._given_up[call.id] = call.method
            if call.wait_s > 0:
                # A daemon that does not know it ignores it: then the wait ends by itself.
                self._write(to_line({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": call.id}}))

    def _received(self, line: bytes, socket: _Socket) -> None:
        try:
            message = json.loads(line)
            messages: List[Dict[str, Any]] = message if isinstance(message, list) else [message]
            for each in messages:
                if "method" not in each:
                    self._answer_came(each["id"], each)
                elif "id" in each:
                    self.start(self._perform(each, socket))
                else:
                    for listener in list(self._listeners.get(each["method"], ())):
                        self._loop.call_soon(listener, each.get("params") or {})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            logger.warning("What answers on %s is no pawld: %r.", self.path, error)
            socket.transport.abort()

    def _answer_came(self, id: Any, response: Dict[str, Any]) -> None:
        error = from_object(response["error"]) if "error" in response else None
        if id is None:
            return self._line_was_refused(error)
        self._answered = True
        call = self._pending.get(id)
        if call is None:
            method = self._given_up.pop(id, None)
            if method is not None and error is None:
                self.give_back(method, response.get("result"))
        elif error is not None and error.kind == "unavailable" and error.details.get("reason") == "stopping":
            # It was not performed. The next daemon takes it.
            call.sent = False
            self._leave()
        else:
            del self._pending[id]
            if error is not None:
                call.reject(error)
            elif not call.future.done():
                call.future.set_result(response.get("result"))

    def _line_was_refused(self, error: Optional[PawlError]) -> None:
        """A line that was refused unread has no id in its answer: the longest is meant, and none after it counts."""
        sent = [call for call in self._pending.values() if call.sent]
        if error is None or error.kind != "message_too_large" or not sent:
            return
        longest = max(sent, key=lambda call: len(call.line))
        del self._pending[longest.id]
        longest.reject(error)
        for call in sent:
            call.sent = call.id < longest.id
        self._leave()

    def _leave(self) -> None:
        if self.state == "up":
            self.state = "leaving"

    async def _perform(self, request: Dict[str, Any], socket: _Socket) -> None:
        answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            handler = self.handlers.get(request["method"])
            if handler is None:
                raise RequestFailure(-32601, f"This client does not serve {request['method']}.")
            line = to_line({**answer, "result": await handler(request.get("params") or {})})
        except RequestFailure as failure:
            line = to_line({**answer, "error": failure.error})
        except Exception as error:  # The answer says it.
            line = to_line({**answer, "error": {"code": -32603, "message": str(error) or repr(error)}})
        # The daemon delivers anew what the connection had that it was sent on.
        if socket is self._socket:
            self._write(line)

    def _lost(self, socket: _Socket, complete: bool) -> None:
        if socket is not self._socket:
            return
        # A stopping daemon answers all that it performed, then closes.
        answered_all = self.state == "leaving" and complete
        self._socket = None
        self._given_up.clear()
        if self.state == "closed":
            return
        self.state = "down"
        now = self._loop.time()
        worked = self._answered or now - self._opened_at >= WORKING_S
        if worked:
            self._pause_s = 0.0
        for call in list(self._pending.values()):
            if worked:
                call.waits_since = now
            unknown = call.sent and not answered_all
            call.sent = False
            call.may_have_taken_effect |= unknown
            if unknown and not call.repeatable:
                del self._pending[call.id]
                call.lose(f"The connection ended before the answer to {call.method} came; it may have taken effect.")
        self._tell_disconnected()
        self._reconnect()

    def _tell_disconnected(self) -> None:
        for watcher in list(self._watchers):
            watcher.disconnected()

    def _reconnect(self) -> None:
        if self.state == "down" and not self._connecting:
            self._connecting = True
            self.start(self._connect_again())

    async def _connect_again(self) -> None:
        try:
            while self.state == "down" and (self._pending or self._watchers):
                pause = self._pause_s * random.uniform(0.5, 1.0)
                self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), MAX_PAUSE_S)
                overdue_at = [call.waits_since + self._reconnect_s for call in self._pending.values()]
                await asyncio.sleep(max(0.0, min([pause, *(at - self._loop.time() for at in overdue_at)])))
                try:
                    return await self.open()
                except OSError as error:
                    for call in list(self._pending.values()):
                        if self._loop.time() - call.waits_since >= self._reconnect_s:
                            del self._pending[call.id]
                            call.lose(f"No daemon answers on {self.path}: {error.strerror or error}.")
                    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                        self._tell_disconnected()
        finally:
            self._connecting = False


def _undone(method: str, result: Any) -> Iterable[Tuple[str, Params]]:
    """The calls that give back what a method has granted, by its result."""
    if method == "queue.claim" and result["claim"] is not None:
        yield "queue.abandon", {name: result["claim"][name] for name in ("claimId", "leaseToken")}
    elif method == "lease.acquire":
        # All leases of one call end with any of them.
        yield "lease.release", {"leaseId": (result.get("lease") or result["leases"][0])["leaseId"]}
    elif method == "path.reserve":
        yield "path.release", {"reservationId": result["reservation"]["reservationId"]}
    elif method == "command.lease":
        for lease in result["leases"]:
            yield "command.release", {"leaseId": lease["leaseId"], "delayMs": 0}
