"""The client for asyncio.

    async with pawl.aio.connect() as client:
        print((await client.next("FR"))["id"])
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Generator, List, Mapping, Optional, Sequence, Type, Union

from . import work as _work
from .connection import Connection, Listener, Params
from .errors import ConnectionLost
from .grants import Held, Holding, lease_params, only_given, path_params
from .socket_path import socket_paths
from .types import Batch, Block, Claim, Enqueued, Envelope, Event, Number

Handlers = Mapping[str, Callable[[Any], Awaitable[Any]]]


async def open_connection(socket: Optional[str], instance: Optional[str], reconnect: float) -> Connection:
    """Connects at the first place where a daemon answers; raises `ConnectionLost` when none does."""
    paths = [socket] if socket is not None else socket_paths(instance)
    for path in paths:
        connection = Connection(path, reconnect)
        for _ in range(250):
            try:
                await connection.open()
                return connection
            except BlockingIOError:
                await asyncio.sleep(0.02)  # More come at once than the kernel queues.
            except (FileNotFoundError, ConnectionRefusedError):
                break
            except OSError as error:
                raise ConnectionLost(f"Cannot connect to {path}: {error.strerror or error}.") from error
    raise ConnectionLost(f"No daemon listens on {' or '.join(paths)}. Start one with pawld.")


class connect:  # noqa: N801 - it is used as a function.
    """Connects: `async with connect() as client`, or `client = await connect()`.

    :param socket: the path of the socket; otherwise by the rule of `pawl socket-path`.
    :param reconnect: for how many seconds a call waits for a daemon that went away.
    """

    def __init__(
        self, socket: Optional[str] = None, *, instance: Optional[str] = None, reconnect: float = 30.0
    ) -> None:
        self._given = (socket, instance, reconnect)
        self._client: Optional[Client] = None

    async def _open(self) -> Client:
        return Client(await open_connection(*self._given))

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()


class Client:
    """Calls of the daemon. Made by `connect`; belongs to the event loop that made it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def close(self) -> None:
        """Closes for good: what ends with the connection ends."""
        await self.connection.close()

    async def call(self, method: str, params: Optional[Params] = None) -> Any:
        """Calls any method; docs/protocol.md and `rpc.discover` have them."""
        return await self.connection.call(method, params)

    def on(self, notification: str, listener: Listener) -> Callable[[], None]:
        """Has a listener called with the params of each notification, until the returned function is called."""
        return self.connection.on(notification, listener)

    async def next(self, type: str, *, request_id: Optional[str] = None) -> Number:
        """The next number of a type. With a `request_id` it can be repeated, and burns no number."""
        number: Number = await self.call("sequence.next", {"type": type, **only_given({"requestId": request_id})})
        return number

    async def next_block(self, type: str, count: int, *, request_id: Optional[str] = None) -> Block:
        """As many numbers in one piece."""
        params = {"type": type, "count": count, **only_given({"requestId": request_id})}
        block: Block = await self.call("sequence.reserve", params)
        return block

    async def enqueue(
        self, queue: str, *payloads: Any, source_key: Optional[str] = None, delay: Optional[float] = None, **more: Any
    ) -> Enqueued:
        """Enqueues one batch; `more` are params of `queue.enqueue` as they travel (`priority`, `maxAttempts` ...)."""
        enqueued: Enqueued = await self.call("queue.enqueue", enqueue_params(queue, payloads, source_key, delay, more))
        return enqueued

    async def batch(self, batch_id: str) -> Batch:
        batch: Batch = (await self.call("queue.get", {"batchId": batch_id}))["batch"]
        return batch

    async def wait(self, batch_id: str, timeout: float) -> Batch:
        """The batch once it is final, or as it is when the time is over."""
        params = {"batchId": batch_id, "waitMs": round(timeout * 1000)}
        batch: Batch = (await self.call("queue.wait", params))["batch"]
        return batch

    async def transact(
        self, calls: Sequence[Mapping[str, Any]], guards: Optional[Sequence[Mapping[str, Any]]] = None
    ) -> List[Any]:
        """Performs several calls in one transaction: all or none. Gives the result of each."""
        params = {"calls": list(calls), **only_given({"guards": guards and list(guards)})}
        results: List[Any] = (await self.call("transact", params))["results"]
        return results

    async def send(self, deployment: str, command: str, params: Any = None, *, wait: float = 0.0, **more: Any) -> Any:
        """Sends a command. With `wait` (seconds), gives its answer as `{"status": ..., ...}`, or None if none came."""
        return await send(self.connection, deployment, command, params, wait, more)

    def work(
        self, queue: Union[str, List[str]], handler: Callable[[Work], Awaitable[Any]], **options: Any
    ) -> Worker:
        """Works on a queue: claims, renews, completes when the handler returns, gives back with its error otherwise.

        The handler is cancelled when the claim is lost or cancelled. Options: `concurrency`, `lease` (seconds), `owner`,
        `max_batches`, `boundary`, `release_on`, `on_complete`, `on_error`.
        """
        return Worker(self.connection, queue, handler, options)

    def lock(
        self, *names: str, ttl: float = 30.0, wait: float = 0.0, mode: Optional[str] = None, **more: Any
    ) -> Lock:
        """Holds a lease: `async with client.lock("deploy") as lease`. The body is cancelled when it is lost, and
        `LeaseLost` raised. `more` are params of `lease.acquire` as they travel (`note`, `slots`, `owner` ...)."""
        return Lock(self.connection, "lease", lease_params(names, ttlMs=round(ttl * 1000), mode=mode, **more), wait)

    def reserve(
        self, root: str, patterns: Union[str, Sequence[str]], *, ttl: float = 30.0, wait: float = 0.0, **more: Any
    ) -> Lock:
        """Holds a reservation of the files below `root` that fit the patterns, as `lock` does a lease."""
        return Lock(self.connection, "path", path_params(root, patterns, ttlMs=round(ttl * 1000), **more), wait)

    async def events(self, *topics: str, since: Optional[str] = None) -> AsyncIterator[Event]:
        """What happens, from now or after a cursor; an event of kind `gap` says that some may be missing."""
        while True:
            answer = await self.call("events.watch", events_params(topics, since))
            since = answer["cursor"]
            for event in events_of(answer):
                yield event

    def serve(
        self, deployment: str, handlers: Handlers, *, concurrency: int = 1, **more: Any
    ) -> _work.Receiver:
        """Carries out the commands of a deployment: each handler is given the envelope and returns the answer. It is
        cancelled when nobody waits for that any more. Ends with `await receiver.stop()`."""

        async def perform(envelope: Envelope) -> Any:
            return await handler_of(handlers, envelope)(envelope)

        return _work.Receiver(
            self.connection, deployment, perform, lambda _, __, task: task.cancel(),
            concurrency=concurrency, **more,
        )  # fmt: skip


class Work(_work.Work):
    """The batches of one claim, as a handler gets them."""

    def __init__(self, claim: Claim, connection: Connection) -> None:
        super().__init__(claim)
        self._connection = connection

    async def progress(self, percent: Optional[float] = None, note: Optional[str] = None, **more: Any) -> None:
        """Tells how far it is; `checkpoint` is given to the next holder."""
        await self._connection.call("queue.progress", progress_params(self.claim, percent, note, more))


class Worker(_work.Worker):
    """Work under way: await it to work until it is stopped, or use it as `async with`, whose end stops it."""

    def __init__(
        self,
        connection: Connection,
        queue: Union[str, List[str]],
        handler: Callable[[Work], Awaitable[Any]],
        options: Dict[str, Any],
    ) -> None:
        async def perform(work: _work.Work) -> Any:
            return await handler(work)  # type: ignore[arg-type]

        super().__init__(
            connection, queue, perform, lambda _, task: task.cancel(), lambda claim: Work(claim, connection),
            **options,
        )  # fmt: skip

    async def join(self) -> None:
        """Waits until it has ended; raises the refusal if the daemon gives nothing for good."""
        await self.done

    def __await__(self) -> Generator[Any, None, None]:
        return self.join().__await__()

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await self.done


class Lock(Holding):
    """A lease or a reservation, held while the body of `async with` runs."""

    _task: Optional[asyncio.Task[Any]] = None

    async def __aenter__(self) -> Held:
        held = await self.begin(Held)
        self._task = asyncio.current_task()
        self.on_lost = lambda _: self._task is not None and self._task.cancel()
        return held

    async def __aexit__(
        self, _: Optional[Type[BaseException]], error: Optional[BaseException], __: Optional[TracebackType]
    ) -> None:
        task, self._task = self._task, None
        if isinstance(error, asyncio.CancelledError) and self._held is not None and self._held.lost:
            if sys.version_info >= (3, 11) and task is not None:
                task.uncancel()
        await self.end()


def enqueue_params(
    queue: str, payloads: Sequence[Any], source_key: Optional[str], delay: Optional[float], more: Dict[str, Any]
) -> Dict[str, Any]:
    delay_ms = None if delay is None else round(delay * 1000)
    given = only_given({"sourceKey": source_key, "delayMs": delay_ms})
    return {"queue": queue, "payloads": list(payloads), **given, **more}


def progress_params(
    claim: Claim, percent: Optional[float], note: Optional[str], more: Dict[str, Any]
) -> Dict[str, Any]:
    proof = {"claimId": claim["claimId"], "leaseToken": claim["leaseToken"]}
    return {**proof, **only_given({"percent": percent, "note": note}), **more}


def events_params(topics: Sequence[str], since: Optional[str]) -> Dict[str, Any]:
    waiting: Dict[str, Any] = {} if since is None else {"since": since, "waitMs": _work.ASK_WAIT_MS}
    return {"topics": list(topics) or ["*"], **waiting}


def events_of(answer: Dict[str, Any]) -> List[Event]:
    gap: List[Event] = [{"kind": "gap", "cursor": answer["cursor"]}] if answer["gap"] else []
    events: List[Event] = gap + answer["events"]
    return events


def handler_of(handlers: Mapping[str, Any], envelope: Envelope) -> Any:
    handler = handlers.get(envelope["command"])
    if handler is None:
        message = f"{envelope['deployment']} does not know {envelope['command']}."
        raise _work.CommandFailed("UNKNOWN_COMMAND", message)
    return handler


async def send(
    connection: Connection, deployment: str, command: str, params: Any, wait: float, more: Dict[str, Any]
) -> Any:
    asked = {"deployment": deployment, "command": command, "params": params, **more}
    created: Dict[str, Any] = await connection.call("command.create", asked)
    if wait <= 0:
        return created
    command_id = {"commandId": created["commandId"]}
    await connection.call("command.wait", {**command_id, "waitMs": round(wait * 1000)})
    return (await connection.call("command.response", command_id))["response"]
