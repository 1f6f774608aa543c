"""The client for asyncio.

    async with pawl.aio.connect() as client:
        print((await client.next("FR"))["id"])
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import (
    Any, AsyncIterator, Awaitable, Callable, Dict, Generator, List, Mapping, Optional, Sequence, Tuple, Union,
)  # fmt: skip

from . import grants, work as _work
from .connection import Connection, Listener, Params, only_given
from .errors import ConnectionLost
from .grants import LEASE, PATH, Held, lease_names, path_names
from .socket_path import socket_paths
from .types import Batch, CommandExecuteParams, NumberedId, QueueEnqueueResult

Event = Dict[str, Any]


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

    async def _open(self) -> Client:
        self._client = Client(await open_connection(*self._given))
        return self._client

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        return await self._open()

    async def __aexit__(self, *_: object) -> None:
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

    async def next(self, type: str, *, request_id: Optional[str] = None) -> NumberedId:
        """The next number of a type. With a `request_id` it can be repeated, and burns no number."""
        number: NumberedId = await self.call("sequence.next", {"type": type, **only_given({"requestId": request_id})})
        return number

    async def enqueue(
        self, queue: str, *payloads: Any, source_key: Optional[str] = None, delay: Optional[float] = None, **more: Any
    ) -> QueueEnqueueResult:
        """Enqueues one batch; `more` are params of `queue.enqueue` as they travel (`priority`, `maxAttempts` ...)."""
        given = only_given({"sourceKey": source_key, "delayMs": None if delay is None else round(delay * 1000)})
        params = {"queue": queue, "payloads": list(payloads), **given, **more}
        enqueued: QueueEnqueueResult = await self.call("queue.enqueue", params)
        return enqueued

    async def wait(self, batch_id: str, timeout: float) -> Batch:
        """The batch once it is final, or as it is when the time is over."""
        params = {"batchId": batch_id, "waitMs": round(timeout * 1000)}
        batch: Batch = (await self.call("queue.wait", params))["batch"]
        return batch

    async def transact(
        self, calls: Sequence[Mapping[str, Any]], guards: Optional[Sequence[Mapping[str, Any]]] = None
    ) -> List[Any]:
        """Performs several calls in one transaction: all or none. Gives the result of each."""
        params = {"calls": list(calls), **only_given({"guards": guards})}
        results: List[Any] = (await self.call("transact", params))["results"]
        return results

    async def send(self, deployment: str, command: str, params: Any = None, *, wait: float = 0.0, **more: Any) -> Any:
        """Sends a command. With `wait` (seconds), gives its answer as `{"status": ..., ...}`, or None if none came."""
        asked = {"deployment": deployment, "command": command, "params": params, **more}
        created = await self.call("command.create", asked)
        if wait <= 0:
            return created
        command_id = created["commandId"]
        await self.call("command.wait", {"commandId": command_id, "waitMs": round(wait * 1000)})
        response = (await self.call("command.response", {"commandId": command_id}))["response"]
        if isinstance(response, dict) and list(response) == ["$upload"]:
            return json.loads(await _work.read_pieces(self.connection, "command.response", command_id))
        return response

    def work(self, queue: Union[str, List[str]], handler: Callable[[Work], Awaitable[Any]], **options: Any) -> Worker:
        """Works on a queue: claims, renews, completes when the handler returns, gives back with its error otherwise.

        The handler is cancelled when the claim is lost or cancelled. Options: `concurrency`, `lease` (seconds),
        `on_complete`, `on_error`, and params of `queue.claim` as they travel (`owner`, `maxBatches` ...).
        """
        return Worker(self.connection, queue, Work, handler, lambda _, task: task.cancel(), **options)

    def lock(self, *names: str, ttl: float = 30.0, wait: float = 0.0, **more: Any) -> Lock:
        """Holds a lease: `async with client.lock("deploy") as lease`. The body is cancelled when it is lost, and
        `LeaseLost` raised. `more` are params of `lease.acquire` as they travel (`mode`, `slots`, `note` ...)."""
        return Lock(self.connection, LEASE, lease_names(names), ttl, wait, None, more)

    def reserve(
        self, root: str, patterns: Union[str, Sequence[str]], *, ttl: float = 30.0, wait: float = 0.0, **more: Any
    ) -> Lock:
        """Holds a reservation of the files below `root` that fit the patterns, as `lock` does a lease."""
        return Lock(self.connection, PATH, path_names(root, patterns), ttl, wait, None, more)

    async def events(self, *topics: str, since: Optional[str] = None) -> AsyncIterator[Event]:
        """What happens, from now or after a cursor; an event of kind `gap` says that some may be missing."""
        while True:
            happened, since = await self.next_events(topics, since)
            for event in happened:
                yield event

    async def next_events(self, topics: Sequence[str], since: Optional[str]) -> Tuple[List[Event], str]:
        """Events after a cursor, once there is one, and where they end. Without a cursor: none, and where now is."""
        waiting: Dict[str, Any] = {} if since is None else {"since": since, "waitMs": _work.ASK_WAIT_MS}
        answer = await self.call("events.watch", {"topics": list(topics) or ["*"], **waiting})
        gap: List[Event] = [{"kind": "gap", "cursor": answer["cursor"]}] if answer["gap"] else []
        return gap + answer["events"], answer["cursor"]

    def serve(
        self, deployment: str, handlers: Mapping[str, Callable[[Any], Awaitable[Any]]], *, concurrency: int = 1,
        **more: Any,
    ) -> Receiver:  # fmt: skip
        """Carries out the commands of a deployment: each handler is given the envelope and returns the answer. It is
        cancelled when nobody waits for that any more. Ends with `await receiver.stop()`."""

        async def perform(handler: Any, envelope: CommandExecuteParams) -> Any:
            return await handler(envelope)

        return Receiver(
            self.connection, deployment, handlers, perform, lambda task: task.cancel(), concurrency, more
        )


class Work(_work.Work):
    async def progress(self, percent: Optional[float] = None, note: Optional[str] = None, **more: Any) -> None:
        """Tells how far it is; `checkpoint` is given to the next holder."""
        given = only_given({"percent": percent, "note": note})
        await self._connection.call("queue.progress", {**self.proof, **given, **more})


class Worker(_work.Worker):
    """Work under way: await it to work until it is stopped, or use it as `async with`, whose end stops it."""

    def __await__(self) -> Generator[Any, None, None]:
        return self.done.__await__()

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await self.done


class Receiver(_work.Receiver):
    async def stop(self) -> None:
        """Has nothing more sent, and waits for what runs."""
        await self._stop()


class Lock(grants.Lock):
    """A lease or a reservation, held while the body of `async with` runs."""

    async def __aenter__(self) -> Held:
        task = asyncio.current_task()
        self._on_loss = lambda _: self._inside and task is not None and task.cancel()
        self._enter_task()
        try:
            held = await self._begin()
        except BaseException:
            self._leave_task()
            raise
        self._inside = True
        return held

    async def __aexit__(self, _: object, error: Optional[BaseException], __: object) -> None:
        self._inside = False
        self._leave_task()
        if isinstance(error, asyncio.CancelledError) and self._held is not None and self._held.lost:
            task: Any = asyncio.current_task()
            if sys.version_info >= (3, 11):
                task.uncancel()
        await self._release()

    _inside = False
