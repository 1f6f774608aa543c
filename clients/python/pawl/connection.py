"""One connection to the daemon that survives its restarts: calls, notifications, and requests of the daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Set

from .errors import ConnectionLost, PawlError, error_of, from_object
from .repeatable import NEVER_REPEATED, REPEATABLE_METHODS
from .socket_path import check_length

logger = logging.getLogger("pawl")

FIRST_PAUSE_S = 0.01
MAX_PAUSE_S = 0.5
# A connection that has lasted so long works, even if nothing was answered on it.
WORKING_S = 1.0
MAX_REPLY_BYTES = 256 * 1024 * 1024
MAX_INTEGER = 2**53 - 1

Params = Mapping[str, Any]
Listener = Callable[[Dict[str, Any]], None]
Handler = Callable[[Dict[str, Any]], Awaitable[Any]]


class RequestFailure(Exception):
    """Raised by the handler of a request of the daemon, to choose the error object that answers it."""

    def __init__(self, error: Dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Watcher:
    """Told of connections that come and go."""

    def up(self) -> None:
        """There is a connection again."""

    def down(self) -> None:
        """There is none any more."""

    def refused(self) -> None:
        """Connecting was tried, and nobody listens: no daemon has started since."""


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
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"
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
        self.sent = False
        # True if the request was sent on an earlier connection and may have been performed there.
        self.may_have_taken_effect = False

    @property
    def wait_s(self) -> float:
        wait_ms = self.params.get("waitMs")
        return wait_ms / 1000 if isinstance(wait_ms, int) else 0.0

    def shorten_wait(self, now: float) -> None:
        """Makes a request that is sent again wait no longer than its caller does."""
        if self.wait_s > 0:
            left = max(0, round(1000 * (self.started_at + self.wait_s - now)))
            params = {**self.params, "waitMs": left}
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
        self.transport: Optional[asyncio.Transport] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        begin = 0
        while (end := buffer.find(b"\n", max(begin, self._scanned))) >= 0:
            line = bytes(buffer[begin:end])
            begin = end + 1
            if line.strip():
                self._connection._received(line)
        del buffer[:begin]
        self._scanned = len(buffer)
        if len(buffer) > MAX_REPLY_BYTES and self.transport is not None:
            self.transport.abort()

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, error: Optional[Exception]) -> None:
        complete = (self._ended or isinstance(error, (ConnectionResetError, BrokenPipeError))) and not self._buffer
        self._connection._lost(self, complete)


class Connection:
    """`up`: requests are sent at once. `leaving`: the daemon performs nothing more on this connection, answers on their
    way are still read. `down`: while a request waits, or somebody keeps it, connecting is tried with growing pauses.
    `closed`: for good.

    Belongs to one event loop. Not safe for other threads.
    """

    def __init__(self, path: str, reconnect_s: float = 30.0) -> None:
        check_length(path)
        self.path = path
        self._reconnect_s = reconnect_s
        self._loop = asyncio.get_running_loop()
        self.state = "down"
        self._socket: Optional[_Socket] = None
        self._pending: Dict[int, _Call] = {}
        self._given_up: Dict[int, str] = {}
        self._next_id = 1
        self._listeners: Dict[str, List[Listener]] = {}
        self._handlers: Dict[str, Handler] = {}
        self.watchers: List[Watcher] = []
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._keepers = 0
        self._connecting: Optional[asyncio.Task[None]] = None
        self._pause_s = 0.0
        self._opened_at = 0.0
        self._answered = False
        self._tasks: Set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Connects once; raises the system's error."""
        _, socket = await self._loop.create_unix_connection(lambda: _Socket(self), self.path)
        if self.state == "closed":
            if socket.transport is not None:
                socket.transport.abort()
            raise ConnectionLost("The client was closed while it was connecting.")
        self._socket = socket
        self.state = "up"
        self._opened_at = self._loop.time()
        self._answered = False
        for call in list(self._pending.values()):
            call.shorten_wait(self._opened_at)
            self._send(call)
        for watcher in list(self.watchers):
            watcher.up()

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
            self._send(call)
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

    def handle(self, method: str, handler: Handler) -> None:
        """Has a handler answer the requests that the daemon makes of this client."""
        self._handlers[method] = handler

    def keep(self) -> Callable[[], None]:
        """Keeps connecting although no request waits, until the returned function is called."""
        self._keepers += 1
        self._reconnect()
        kept = True

        def let_go() -> None:
            nonlocal kept
            self._keepers -= 1 if kept else 0
            kept = False

        return let_go

    def start(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Runs something in the background that the garbage collector is not to take away."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Closes for good. Calls without an answer raise `ConnectionLost`."""
        if self.state == "closed":
            return
        self.state = "closed"
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.close()
        for call in self._pending.values():
            call.lose("The client was closed before the answer came.")
        self._pending.clear()
        self.closed.set_result(None)
        for task in list(self._tasks):
            task.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        await asyncio.sleep(0)

    def _send(self, call: _Call) -> None:
        call.sent = self._write(call.line)

    def _write(self, line: bytes) -> bool:
        transport = None if self._socket is None else self._socket.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(line)
        return True

    def _give_up(self, call: _Call) -> None:
        if self._pending.pop(call.id, None) is None:
            # The answer had come already.
            if call.future.done() and not call.future.cancelled() and call.future.exception() is None:
                self._give_back(call.method, call.future.result())
            return
        if call.sent and self.state in ("up", "leaving"):
            self._given_up[call.id] = call.method
            if call.wait_s > 0:
                # A daemon that does not know it ignores it: then the wait ends by itself.
                self._write(to_line({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": call.id}}))

    def _give_back(self, method: str, result: Any) -> None:
        for undo, params in _undone(method, result):
            self.start(self._quietly(undo, params))

    async def _quietly(self, method: str, params: Params) -> None:
        try:
            await self.call(method, params)
        except (PawlError, ConnectionLost):
            pass  # The grant ends by its time.

    def _received(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return self._break("it sent what is not JSON")
        for each in message if isinstance(message, list) else [message]:
            if not isinstance(each, dict):
                return self._break("it sent what is not JSON-RPC")
            if "method" not in each:
                self._answer_came(each)
            elif "id" in each:
                self.start(self._perform(each, self._socket))
            else:
                for listener in list(self._listeners.get(each["method"], ())):
                    self._loop.call_soon(listener, each.get("params") or {})
        return None

    def _break(self, why: str) -> None:
        logger.warning("What answers on %s is no pawld: %s.", self.path, why)
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.abort()

    def _answer_came(self, response: Dict[str, Any]) -> None:
        id, error = response.get("id"), from_object(response["error"]) if "error" in response else None
        if id is None:
            return self._line_was_refused(error)
        self._answered = True
        call = self._pending.get(id) if isinstance(id, int) else None
        if call is None:
            method = self._given_up.pop(id, None) if isinstance(id, int) else None
            if method is not None and error is None:
                self._give_back(method, response.get("result"))
        elif error is not None and error.kind == "unavailable" and error.details.get("reason") == "stopping":
            # It was not performed. The next daemon takes it.
            call.sent = False
            self._leave()
        else:
            del self._pending[call.id]
            if error is not None:
                call.reject(error)
            elif not call.future.done():
                call.future.set_result(response.get("result"))
        return None

    def _line_was_refused(self, error: Optional[PawlError]) -> None:
        """A line that was refused unread has no id in its answer: the longest is meant, and none after it counts."""
        sent = [call for call in self._pending.values() if call.sent]
        if error is None or error.kind != "message_too_large" or not sent:
            return
        longest = max(sent, key=lambda call: len(call.line))
        del self._pending[longest.id]
        longest.reject(error)
        for call in sent:
            call.sent = call.sent and call.id < longest.id
        self._leave()

    def _leave(self) -> None:
        if self.state == "up":
            self.state = "leaving"

    async def _perform(self, request: Dict[str, Any], socket: Optional[_Socket]) -> None:
        answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            handler = self._handlers.get(request["method"])
            if handler is None:
                raise RequestFailure({"code": -32601, "message": f"This client does not serve {request['method']}."})
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
            call.may_have_taken_effect |= call.sent and not answered_all
            unknown = call.sent and not answered_all and not call.repeatable
            call.sent = False
            if unknown:
                del self._pending[call.id]
                call.lose(f"The connection ended before the answer to {call.method} came; it may have taken effect.")
        for watcher in list(self.watchers):
            watcher.down()
        self._reconnect()

    def _reconnect(self) -> None:
        if self.state == "down" and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect_again())

    async def _connect_again(self) -> None:
        try:
            while self.state == "down" and (self._pending or self._keepers > 0):
                pause = self._pause_s * random.uniform(0.5, 1.0)
                self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), MAX_PAUSE_S)
                await asyncio.sleep(min(pause, self._patience_s()))
                try:
                    return await self.open()
                except OSError as error:
                    self._reject_overdue(error)
                    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                        for watcher in list(self.watchers):
                            watcher.refused()
            self._pause_s = 0.0
        finally:
            self._connecting = None

    def _patience_s(self) -> float:
        left = [call.waits_since + self._reconnect_s - self._loop.time() for call in self._pending.values()]
        return max(0.0, min(left, default=MAX_PAUSE_S))

    def _reject_overdue(self, cause: OSError) -> None:
        now = self._loop.time()
        for call in list(self._pending.values()):
            if now - call.waits_since >= self._reconnect_s:
                del self._pending[call.id]
                call.lose(f"No daemon answers on {self.path}: {cause.strerror or cause}.")


def _undone(method: str, result: Any) -> List[Any]:
    """The calls that give back what a method has granted, by its result."""
    if not isinstance(result, dict):
        return []
    if method == "queue.claim" and result.get("claim"):
        claim = result["claim"]
        return [("queue.abandon", {"claimId": claim["claimId"], "leaseToken": claim["leaseToken"]})]
    if method == "lease.acquire":
        lease = result.get("lease") or (result.get("leases") or [{}])[0]
        return [("lease.release", {"leaseId": lease["leaseId"]})] if "leaseId" in lease else []
    if method == "path.reserve" and result.get("reservation"):
        return [("path.release", {"reservationId": result["reservation"]["reservationId"]})]
    if method == "command.lease":
        return [("command.release", {"leaseId": lease["leaseId"]}) for lease in result.get("leases", [])]
    return []
