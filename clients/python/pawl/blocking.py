"""The blocking client. An event loop in a thread of its own keeps the connection and renews what is held."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError as FutureTimeout
from typing import Any, Callable, Coroutine, Dict, Iterator, List, Mapping, Optional, Sequence, TypeVar, Union

from . import aio, work as _work
from .connection import Connection, Listener, Params
from .grants import Held, Holding, lease_params, path_params
from .types import Batch, Block, Claim, Enqueued, Envelope, Event, Number

T = TypeVar("T")


class Client:
    """Calls of the daemon, from any thread.

        with pawl.connect() as client:
            print(client.next("FR")["id"])

    :param socket: the path of the socket; otherwise by the rule of `pawl socket-path`.
    :param reconnect: for how many seconds a call waits for a daemon that went away.
    """

    def __init__(
        self, socket: Optional[str] = None, *, instance: Optional[str] = None, reconnect: float = 30.0
    ) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pawl", daemon=True)
        self._thread.start()
        # One thread for listeners, so that they may call the client, and are called in order.
        self._listening = ThreadPoolExecutor(1, thread_name_prefix="pawl-listener")
        try:
            self._connection = self._run(aio.open_connection(socket, instance, reconnect))
        except BaseException:
            self._end()
            raise
        self._client = aio.Client(self._connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes for good: what ends with the connection ends."""
        if not self._loop.is_closed():
            self._run(self._connection.close())
            self._end()

    def call(self, method: str, params: Optional[Params] = None, *, timeout: Optional[float] = None) -> Any:
        """Calls any method; docs/protocol.md and `rpc.discover` have them. Raises `TimeoutError` after `timeout` seconds:
        nobody knows then whether it took effect, but what it is granted later is given back."""
        return self._run(self._client.call(method, params), timeout)

    def on(self, notification: str, listener: Listener) -> Callable[[], None]:
        """Has a listener called with the params of each notification, until the returned function is called."""
        stop = self._connection.on(notification, lambda params: self._tell(listener, params))

        def stop_soon() -> None:
            self._loop.call_soon_threadsafe(stop)

        return stop_soon

    def next(self, type: str, *, request_id: Optional[str] = None) -> Number:
        """The next number of a type. With a `request_id` it can be repeated, and burns no number."""
        return self._run(self._client.next(type, request_id=request_id))

    def next_block(self, type: str, count: int, *, request_id: Optional[str] = None) -> Block:
        """As many numbers in one piece."""
        return self._run(self._client.next_block(type, count, request_id=request_id))

    def enqueue(
        self, queue: str, *payloads: Any, source_key: Optional[str] = None, delay: Optional[float] = None, **more: Any
    ) -> Enqueued:
        """Enqueues one batch; `more` are params of `queue.enqueue` as they travel (`priority`, `maxAttempts` ...)."""
        return self._run(self._client.enqueue(queue, *payloads, source_key=source_key, delay=delay, **more))

    def batch(self, batch_id: str) -> Batch:
        return self._run(self._client.batch(batch_id))

    def wait(self, batch_id: str, timeout: float) -> Batch:
        """The batch once it is final, or as it is when the time is over."""
        return self._run(self._client.wait(batch_id, timeout))

    def transact(
        self, calls: Sequence[Mapping[str, Any]], guards: Optional[Sequence[Mapping[str, Any]]] = None
    ) -> List[Any]:
        """Performs several calls in one transaction: all or none. Gives the result of each."""
        return self._run(self._client.transact(calls, guards))

    def send(self, deployment: str, command: str, params: Any = None, *, wait: float = 0.0, **more: Any) -> Any:
        """Sends a command. With `wait` (seconds), gives its answer as `{"status": ..., ...}`, or None if none came."""
        return self._run(self._client.send(deployment, command, params, wait=wait, **more))

    def work(self, queue: Union[str, List[str]], handler: Callable[[Work], Any], **options: Any) -> Worker:
        """Works on a queue, in threads: claims, renews, completes when the handler returns, gives back with its error
        otherwise. A thread cannot be interrupted, so a handler that takes long looks at `work.lost`, or calls
        `work.check()`, now and then. Options: `concurrency`, `lease` (seconds), `owner`, `max_batches`, `boundary`,
        `release_on`, `on_complete`, `on_error`."""
        return Worker(self, queue, handler, options)

    def lock(
        self, *names: str, ttl: float = 30.0, wait: float = 0.0, mode: Optional[str] = None,
        on_loss: Optional[Callable[[BaseException], None]] = None, **more: Any,
    ) -> Lock:  # fmt: skip
        """Holds a lease: `with client.lock("deploy") as lease`. `on_loss` is told of a loss at once, in another thread;
        the end of the body raises `LeaseLost`. `more` are params of `lease.acquire` as they travel (`note`, `slots` ...).
        """
        return Lock(self, "lease", lease_params(names, ttlMs=round(ttl * 1000), mode=mode, **more), wait, on_loss)

    def reserve(
        self, root: str, patterns: Union[str, Sequence[str]], *, ttl: float = 30.0, wait: float = 0.0,
        on_loss: Optional[Callable[[BaseException], None]] = None, **more: Any,
    ) -> Lock:  # fmt: skip
        """Holds a reservation of the files below `root` that fit the patterns, as `lock` does a lease."""
        return Lock(self, "path", path_params(root, patterns, ttlMs=round(ttl * 1000), **more), wait, on_loss)

    def events(self, *topics: str, since: Optional[str] = None) -> Iterator[Event]:
        """What happens, from now or after a cursor; an event of kind `gap` says that some may be missing."""
        answer = self.call("events.watch", aio.events_params(topics, since))

        def follow(answer: Dict[str, Any]) -> Iterator[Event]:
            while True:
                yield from aio.events_of(answer)
                answer = self.call("events.watch", aio.events_params(topics, answer["cursor"]))

        return follow(answer)

    def serve(
        self, deployment: str, handlers: Mapping[str, Callable[[Any], Any]], *, concurrency: int = 1, **more: Any
    ) -> Receiver:
        """Carries out the commands of a deployment, in threads: each handler is given the envelope and returns the
        answer. Ends with `receiver.stop()`, or as a context manager."""
        return Receiver(self, deployment, handlers, concurrency, more)

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: Optional[float] = None) -> T:
        if os.getpid() != self._pid:
            coroutine.close()
            raise RuntimeError("A client does not survive fork(): connect in the child.")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("The blocking client is called on its own event loop.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except FutureTimeout:
            if future.cancel():
                raise TimeoutError(f"No answer within {timeout} s.") from None
            raise
        except BaseException:
            future.cancel()
            raise

    def _tell(self, listener: Callable[[T], None], what: T) -> None:
        try:
            self._listening.submit(listener, what)
        except RuntimeError:
            pass  # The client is closed.

    def _end(self) -> None:
        self._listening.shutdown(wait=False)
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._loop.close()


class Work(_work.Work):
    """The batches of one claim, as a handler gets them. `stopped` is set when it is to stop."""

    def __init__(self, claim: Claim, client: Client) -> None:
        super().__init__(claim)
        self._client = client
        self.stopped = threading.Event()

    def progress(self, percent: Optional[float] = None, note: Optional[str] = None, **more: Any) -> None:
        """Tells how far it is; `checkpoint` is given to the next holder."""
        self._client.call("queue.progress", aio.progress_params(self.claim, percent, note, more))


class Worker:
    """Work under way: `join` works until it is stopped; as a context manager its end stops it."""

    def __init__(
        self, client: Client, queue: Union[str, List[str]], handler: Callable[[Work], Any], options: Dict[str, Any]
    ) -> None:
        self._client = client
        threads = ThreadPoolExecutor(options.get("concurrency", 1), thread_name_prefix="pawl-worker")
        self._threads = threads
        for told in ("on_complete", "on_error"):
            if options.get(told) is not None:
                listener = options[told]
                options[told] = lambda what, listener=listener: client._tell(listener, what)

        async def perform(work: _work.Work) -> Any:
            return await asyncio.get_running_loop().run_in_executor(threads, handler, work)

        def interrupt(work: _work.Work, _: object) -> None:
            work.stopped.set()  # type: ignore[attr-defined]

        async def begin() -> _work.Worker:
            make: Callable[[Claim], Work] = lambda claim: Work(claim, client)
            return _work.Worker(client._connection, queue, perform, interrupt, make, **options)

        self._worker = client._run(begin())

    def stop(self) -> None:
        """Takes nothing more. What runs is worked on to its end. May be called by a signal handler."""
        self._client._loop.call_soon_threadsafe(self._worker.stop)

    def join(self, timeout: Optional[float] = None) -> None:
        """Waits until it has ended; raises the refusal if the daemon gives nothing for good."""

        async def ended() -> None:
            await asyncio.shield(self._worker.done)

        self._client._run(ended(), timeout)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()
        self._threads.shutdown()


class Lock(Holding):
    """A lease or a reservation, held while the body of `with` runs."""

    def __init__(
        self, client: Client, kind: str, params: Dict[str, Any], wait: float,
        on_loss: Optional[Callable[[BaseException], None]],
    ) -> None:  # fmt: skip
        super().__init__(client._connection, kind, params, wait)
        self._client = client
        if on_loss is not None:
            told = on_loss
            self.on_lost = lambda reason: client._tell(told, reason)

    def __enter__(self) -> Held:
        return self._client._run(self.begin(Held))

    def __exit__(self, *_: object) -> None:
        self._client._run(self.end())


class Receiver:
    """Commands that are carried out: `join` does so until it is stopped; as a context manager its end stops it."""

    def __init__(
        self, client: Client, deployment: str, handlers: Mapping[str, Any], concurrency: int, more: Dict[str, Any]
    ) -> None:
        self._client = client
        threads = ThreadPoolExecutor(concurrency, thread_name_prefix="pawl-receiver")

        async def perform(envelope: Envelope) -> Any:
            handler = aio.handler_of(handlers, envelope)
            return await asyncio.get_running_loop().run_in_executor(threads, handler, envelope)

        async def begin() -> _work.Receiver:
            return _work.Receiver(
                client._connection, deployment, perform, lambda *_: None, concurrency=concurrency, **more
            )

        self._receiver = client._run(begin())

    def stop(self) -> None:
        """Has nothing more sent, and waits for what runs."""
        self._client._run(self._receiver.stop())

    def join(self, timeout: Optional[float] = None) -> None:
        """Waits until it has ended."""

        async def ended() -> None:
            await asyncio.shield(self._receiver.done)

        self._client._run(ended(), timeout)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
