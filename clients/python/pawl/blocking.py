"""The blocking client. An event loop in a thread of its own keeps the connection and renews what is held."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError as FutureTimeout
from typing import Any, Callable, Coroutine, Dict, Iterator, List, Mapping, Optional, Sequence, TypeVar, Union

from . import aio, grants, work as _work
from .connection import Connection, Listener, Params, only_given
from .grants import LEASE, PATH, Held, Noun, lease_names, path_names
from .types import Batch, Claim, CommandExecuteParams, NumberedId, QueueEnqueueResult

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
            self._aio = aio.Client(self._run(aio.open_connection(socket, instance, reconnect)))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes for good: what ends with the connection ends."""
        if not self._loop.is_closed():
            self._run(self._aio.close())
            self._end()

    def call(self, method: str, params: Optional[Params] = None, *, timeout: Optional[float] = None) -> Any:
        """Calls any method, as in `aio.Client`. Raises `TimeoutError` after `timeout` seconds: nobody knows then if it
        took effect, but what it is granted later is given back."""
        return self._run(self._aio.call(method, params), timeout)

    def on(self, notification: str, listener: Listener) -> Callable[[], None]:
        """Has a listener called with the params of each notification, in a thread of its own."""
        stop = self._aio.on(notification, self._told(listener))

        def stop_soon() -> None:
            self._loop.call_soon_threadsafe(stop)

        return stop_soon

    # These are as those of `aio.Client`.

    def next(self, type: str, *, request_id: Optional[str] = None) -> NumberedId:
        return self._run(self._aio.next(type, request_id=request_id))

    def enqueue(
        self, queue: str, *payloads: Any, source_key: Optional[str] = None, delay: Optional[float] = None, **more: Any
    ) -> QueueEnqueueResult:
        return self._run(self._aio.enqueue(queue, *payloads, source_key=source_key, delay=delay, **more))

    def wait(self, batch_id: str, timeout: float) -> Batch:
        return self._run(self._aio.wait(batch_id, timeout))

    def transact(
        self, calls: Sequence[Mapping[str, Any]], guards: Optional[Sequence[Mapping[str, Any]]] = None
    ) -> List[Any]:
        return self._run(self._aio.transact(calls, guards))

    def send(self, deployment: str, command: str, params: Any = None, *, wait: float = 0.0, **more: Any) -> Any:
        return self._run(self._aio.send(deployment, command, params, wait=wait, **more))

    def events(self, *topics: str, since: Optional[str] = None) -> Iterator[aio.Event]:
        first = self._run(self._aio.next_events(topics, since))

        def follow(happened: List[aio.Event], cursor: str) -> Iterator[aio.Event]:
            while True:
                yield from happened
                happened, cursor = self._run(self._aio.next_events(topics, cursor))

        return follow(*first)

    def work(self, queue: Union[str, List[str]], handler: Callable[[Work], Any], **options: Any) -> Worker:
        """Works on a queue as `aio.Client.work` does, in threads. A thread cannot be interrupted, so a handler that
        takes long looks at `work.stopped`, or calls `work.check()`, now and then."""
        return Worker(self, queue, handler, options)

    def lock(
        self, *names: str, ttl: float = 30.0, wait: float = 0.0,
        on_loss: Optional[Callable[[BaseException], object]] = None, **more: Any,
    ) -> Lock:  # fmt: skip
        """Holds a lease: `with client.lock("deploy") as lease`. `on_loss` is told of a loss at once, in another thread;
        the end of the body raises `LeaseLost`. `more` as in `aio.Client.lock`."""
        return Lock(self, LEASE, lease_names(names), ttl, wait, on_loss, more)

    def reserve(
        self, root: str, patterns: Union[str, Sequence[str]], *, ttl: float = 30.0, wait: float = 0.0,
        on_loss: Optional[Callable[[BaseException], object]] = None, **more: Any,
    ) -> Lock:  # fmt: skip
        """Holds a reservation of the files below `root` that fit the patterns, as `lock` does a lease."""
        return Lock(self, PATH, path_names(root, patterns), ttl, wait, on_loss, more)

    def serve(
        self, deployment: str, handlers: Mapping[str, Callable[[Any], Any]], *, concurrency: int = 1, **more: Any
    ) -> Receiver:
        """Carries out the commands of a deployment as `aio.Client.serve` does, in threads, until `receiver.stop()`."""
        return Receiver(self, deployment, handlers, concurrency, more)

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: Optional[float] = None) -> T:
        if os.getpid() != self._pid or threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("A client does not survive fork(), and is not called on its own event loop.")
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

    def _told(self, listener: Callable[[T], object]) -> Callable[[T], None]:
        """Calls a listener in the thread for listeners."""

        def tell(what: T) -> None:
            try:
                self._listening.submit(listener, what)
            except RuntimeError:
                pass  # The client is closed.

        return tell

    def _end(self) -> None:
        self._listening.shutdown(wait=False)
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._loop.close()


class Work(_work.Work):
    """The batches of one claim, as a handler gets them. `stopped` is set when it is to stop."""

    def __init__(self, client: Client, connection: Connection, claim: Claim, **how: Any) -> None:
        self._client = client
        self.stopped = threading.Event()
        super().__init__(connection, claim, **how)

    def progress(self, percent: Optional[float] = None, note: Optional[str] = None, **more: Any) -> None:
        """Tells how far it is; `checkpoint` is given to the next holder."""
        given = only_given({"percent": percent, "note": note})
        self._client.call("queue.progress", {**self.proof, **given, **more})


class _Loop:
    """What runs in threads until it is stopped: `join` waits for that, the end of a `with` stops it."""

    def __init__(self, client: Client, threads: int, begin: Callable[[ThreadPoolExecutor], Any]) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pawl")

        async def run() -> Any:
            return begin(self._threads)

        self._running = client._run(run())

    def stop(self) -> None:
        raise NotImplementedError

    def join(self, timeout: Optional[float] = None) -> None:
        """Waits until it has ended; raises the refusal if the daemon gives nothing for good."""

        async def ended() -> None:
            await asyncio.shield(self._running.done)

        self._client._run(ended(), timeout)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()
        self._threads.shutdown()


class Worker(_Loop):
    """Work under way."""

    def __init__(
        self, client: Client, queue: Union[str, List[str]], handler: Callable[[Work], Any], options: Dict[str, Any]
    ) -> None:
        told = {name: client._told(options[name]) for name in ("on_complete", "on_error") if options.get(name)}

        def begin(threads: ThreadPoolExecutor) -> _work.Worker:
            async def perform(work: Work) -> Any:
                return await client._loop.run_in_executor(threads, handler, work)

            def make(*given: Any, **how: Any) -> Work:
                return Work(client, *given, **how)

            connection = client._aio.connection
            return _work.Worker(
                connection, queue, make, perform, lambda work, _: work.stopped.set(), **{**options, **told}
            )

        super().__init__(client, options.get("concurrency", 1), begin)

    def stop(self) -> None:
        """Takes nothing more. What runs is worked on to its end. May be called by a signal handler."""
        self._client._loop.call_soon_threadsafe(self._running.stop)


class Receiver(_Loop):
    """Commands that are carried out."""

    def __init__(
        self, client: Client, deployment: str, handlers: Mapping[str, Any], concurrency: int, more: Dict[str, Any]
    ) -> None:
        def begin(threads: ThreadPoolExecutor) -> _work.Receiver:
            async def perform(handler: Any, envelope: CommandExecuteParams) -> Any:
                return await client._loop.run_in_executor(threads, handler, envelope)

            return _work.Receiver(
                client._aio.connection, deployment, handlers, perform, lambda _: None, concurrency, more
            )

        super().__init__(client, concurrency, begin)

    def stop(self) -> None:
        """Has nothing more sent, and waits for what runs."""
        self._client._run(self._running._stop())


class Lock(grants.Lock):
    """A lease or a reservation, held while the body of `with` runs."""

    def __init__(
        self, client: Client, noun: Noun, named: Dict[str, Any], ttl: float, wait: float,
        on_loss: Optional[Callable[[BaseException], object]], more: Dict[str, Any],
    ) -> None:  # fmt: skip
        told = None if on_loss is None else client._told(on_loss)
        super().__init__(client._aio.connection, noun, named, ttl, wait, told, more)
        self._client = client

    def __enter__(self) -> Held:
        self._enter_task()
        try:
            return self._client._run(self._begin())
        except BaseException:
            self._leave_task()
            raise

    def __exit__(self, *_: object) -> None:
        self._leave_task()
        self._client._run(self._release())
