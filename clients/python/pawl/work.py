"""Loops that take work from the daemon: claims of queues, and commands by push."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode, b64encode
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Set, Union

from .connection import Connection, RequestFailure, Watcher, logger, only_given
from .errors import CommandFailed, ConnectionLost, PawlError, Postpone, error_of, is_for_good, is_loss
from .grants import CLAIM, Grant, default_owner
from .types import Batch, Claim, CommandExecuteParams

ASK_WAIT_MS = 30_000
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
MAX_CONCURRENCY = 256
MAX_ERROR_LENGTH = 16_384
MAX_MESSAGE_LENGTH = 4096
# An answer that may be longer than a line is sent in pieces.
LONG_ANSWER_BYTES = 48 * 1024
MAX_PIECE_BYTES = 512 * 1024
# By how many bytes a request is longer than the piece it carries, at most.
REQUEST_BYTES = 1024


class Work(Grant):
    """The batches of one claim, as a handler gets them."""

    def __init__(self, connection: Connection, claim: Claim, **how: Any) -> None:
        self.claim = claim
        self.batches: List[Batch] = claim["batches"]
        self.payloads: List[Any] = [payload for batch in self.batches for payload in batch["payloads"]]
        super().__init__(connection, CLAIM, f"The claim {claim['claimId']}", claim, **how)
        self._stops.append(connection.on("claim.cancelling", self._told_cancelling))

    def _told_cancelling(self, params: Dict[str, Any]) -> None:
        if params.get("claimId") == self.claim["claimId"]:
            self._cancel(params.get("reason"))

    async def _finish(self, task: Optional[asyncio.Future[Any]]) -> bool:
        """Completes (True) or gives back (False), by what the handler has ended with; raises the reason of a loss."""
        failure = asyncio.CancelledError() if task is None or task.cancelled() else task.exception()
        if self._state == "lost" and not (failure is None and self._overdue):
            raise self.reason or failure or AssertionError
        if failure is None and task is not None:
            # A claim that is lost by our clock only is completed all the same, if nobody else has taken it.
            try:
                await self._end_by("queue.complete", only_given({"result": task.result()}))
                return True
            except PawlError as error:
                if error.kind != "invalid_params":
                    raise
                failure = error  # No JSON, or more of it than a result may have: the work is not done.
        how: Dict[str, Any] = {}
        if isinstance(failure, Postpone):
            how = {"delayMs": round(failure.delay * 1000)}
        elif self.reason is None and failure is not None and not isinstance(failure, asyncio.CancelledError):
            logger.info("The handler of %s failed.", self.claim["claimId"], exc_info=failure)
            how = {"error": _text_of(failure, MAX_ERROR_LENGTH)}
        try:
            await self._end_by("queue.abandon", how)
        except PawlError as error:
            # It was given back by a first try whose answer was lost, or was taken back: it is where it should be.
            if not is_loss(error):
                raise
        self.check()
        return False


class Worker:
    """Works on a queue, or on several, until it is stopped; survives restarts of the daemon.

    :param make: gives what the handler gets for a claim.
    :param handler: does the work; its result is kept as the batches' result, an error gives them back.
    :param interrupt: told once of a loss or a cancel, to end what the handler does.
    :param more: params of `queue.claim` as they travel.
    """

    def __init__(
        self, connection: Connection, queue: Union[str, List[str]], make: Callable[..., Any],
        handler: Callable[[Any], Awaitable[Any]], interrupt: Callable[[Any, asyncio.Future[Any]], object], *,
        concurrency: int = 1, lease: float = 30.0, on_complete: Optional[Callable[[Any], object]] = None,
        on_error: Optional[Callable[[BaseException], object]] = None, **more: Any,
    ) -> None:  # fmt: skip
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise error_of("invalid_params", f"concurrency is from 1 to {MAX_CONCURRENCY}, not {concurrency}.")
        self._connection = connection
        self._make, self._handler, self._interrupt = make, handler, interrupt
        self._lease_s = lease
        self._on_complete = on_complete or (lambda work: None)
        self._on_error = on_error or (lambda error: logger.warning("%s", error))
        self._claim_params: Dict[str, Any] = {
            **({"queue": queue} if isinstance(queue, str) else {"queues": list(queue)}),
            **{"owner": default_owner(), "leaseMs": round(lease * 1000), "releaseOn": "disconnect", "notify": True},
            **{"waitMs": ASK_WAIT_MS, **only_given(more)},
        }
        self._stopping = False
        self._refusal: Optional[BaseException] = None
        self._asking: Set[asyncio.Future[Any]] = set()
        self.done = connection.start(self._run(concurrency))

    def stop(self) -> None:
        """Takes nothing more. What runs is worked on to its end."""
        self._stopping = True
        for asking in list(self._asking):
            asking.cancel()

    async def _run(self, concurrency: int) -> None:
        await asyncio.gather(*(self._slot() for _ in range(concurrency)))
        if self._refusal is not None:
            raise self._refusal

    async def _slot(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping and self._connection.state != "closed":
            asked_at = asyncio.get_running_loop().time()
            asking = asyncio.ensure_future(self._connection.call("queue.claim", self._claim_params))
            self._asking.add(asking)
            try:
                claim = (await asking)["claim"]
                pause = FIRST_PAUSE_S
                if claim is not None:
                    await self._perform(claim, asked_at)
            except asyncio.CancelledError:
                if self._stopping and asking.cancelled():
                    return
                asking.cancel()
                raise
            except (PawlError, ConnectionLost) as error:
                if is_for_good(error):
                    self._refusal = self._refusal or error
                    return self.stop()
                # A daemon that was started again is no news.
                if not (isinstance(error, ConnectionLost) and error.may_have_taken_effect):
                    self._on_error(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, MAX_PAUSE_S)
            finally:
                self._asking.discard(asking)

    async def _perform(self, claim: Claim, asked_at: float) -> None:
        task: Optional[asyncio.Future[Any]] = None

        def interrupt(reason: BaseException) -> None:
            if task is not None:
                self._interrupt(work, task)

        bound = self._claim_params["releaseOn"] == "disconnect"
        work = self._make(
            self._connection, claim, asked_at=asked_at, lease_s=self._lease_s, bound=bound, on_loss=interrupt
        )
        try:
            await work._is_confirmed()
            if not work.lost:
                task = asyncio.ensure_future(self._handler(work))
                await asyncio.wait([task])
            if await work._finish(task):
                self._on_complete(work)
        except asyncio.CancelledError:
            # The worker itself is cancelled: the handler is ended, and the work is another's.
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            self._connection.give_back("queue.claim", {"claim": claim})
            raise
        except (PawlError, ConnectionLost) as error:
            self._on_error(error)
        finally:
            work._end()


class Receiver(Watcher):
    """Carries out the commands of one deployment, which the daemon sends over the connection.

    :param perform: has a handler carry out a command.
    :param interrupt: told when nobody waits for the answer any more.
    :param more: params of `command.serve` as they travel.
    """

    def __init__(
        self, connection: Connection, deployment: str, handlers: Mapping[str, Any],
        perform: Callable[[Any, CommandExecuteParams], Awaitable[Any]],
        interrupt: Callable[[asyncio.Future[Any]], object], concurrency: int, more: Dict[str, Any],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._deployment = deployment
        self._handlers, self._perform, self._interrupt = handlers, perform, interrupt
        self._params: Dict[str, Any] = {"deployment": deployment, "owner": default_owner(), "max": concurrency, **more}
        self._running: Dict[str, asyncio.Future[Any]] = {}
        self._receivers: Dict[str, Receiver] = connection.__dict__.setdefault("receivers", {})
        if deployment in self._receivers:
            raise error_of("invalid_params", f"This client serves {deployment!r} already.")
        self._receivers[deployment] = self
        connection.handlers["command.execute"] = self._execute
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stops = [connection.watch(self), connection.on("command.cancelled", self._cancelled)]
        self.connected()

    def connected(self) -> None:
        self._connection.start(self._subscribe())

    def disconnected(self) -> None:
        """The daemon delivers anew what this connection had."""
        for task in list(self._running.values()):
            self._interrupt(task)

    def closed(self) -> None:
        self._end()

    async def _stop(self) -> None:
        """Has nothing more sent, and waits for what runs."""
        if not self.done.done() and self._connection.state == "up":
            await self._connection.try_call("command.serve", {**self._params, "max": 0})
        while self._running:
            await asyncio.wait(list(self._running.values()))
            await asyncio.sleep(0)
        self._end()

    def _end(self, refusal: Optional[BaseException] = None) -> None:
        self._receivers.pop(self._deployment, None)
        for stop in self._stops:
            stop()
        if not self.done.done():
            self.done.set_result(None) if refusal is None else self.done.set_exception(refusal)

    async def _subscribe(self) -> None:
        pause = FIRST_PAUSE_S
        while not self.done.done():
            try:
                await self._connection.call("command.serve", self._params)
                return
            except ConnectionLost:
                return  # On the next connection it is asked anew.
            except PawlError as error:
                if is_for_good(error):
                    return self._end(error)
                logger.warning("%s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_S)

    async def _execute(self, params: Any) -> Any:
        receiver = self._receivers.get(params["deployment"])
        if receiver is None:
            raise RequestFailure(-32601, f"This client does not serve {params['deployment']}.")
        return await receiver._carry_out(params)

    async def _carry_out(self, envelope: CommandExecuteParams) -> Any:
        command_id = envelope["commandId"]
        task = self._running[command_id] = asyncio.ensure_future(self._answer(envelope))
        try:
            await asyncio.wait([task])
        finally:
            del self._running[command_id]
        failure = asyncio.CancelledError("The command was cancelled.") if task.cancelled() else task.exception()
        if failure is None:
            return task.result()
        data = {"code": "HANDLER_ERROR"}
        if isinstance(failure, CommandFailed):
            data = {"code": failure.code, **only_given({"details": failure.details})}
        raise RequestFailure(1, _text_of(failure, MAX_MESSAGE_LENGTH), data)

    async def _answer(self, envelope: CommandExecuteParams) -> Any:
        handler = self._handlers.get(envelope["command"])
        if handler is None:
            raise CommandFailed("UNKNOWN_COMMAND", f"{self._deployment} does not know {envelope['command']}.")
        params = envelope["params"]
        if isinstance(params, dict) and list(params) == ["$upload"]:
            text = await read_pieces(self._connection, "command.params", envelope["commandId"])
            envelope = envelope.copy()
            envelope["params"] = json.loads(text)
        answer = await self._perform(handler, envelope)
        text = json.dumps({"status": "success", "response": answer}, allow_nan=False).encode()
        if len(text) <= LONG_ANSWER_BYTES:
            return answer
        await send_pieces(self._connection, envelope, text)
        return None  # What was answered in pieces counts.

    def _cancelled(self, params: Dict[str, Any]) -> None:
        task = self._running.get(params["commandId"])
        if task is not None:
            self._interrupt(task)


async def read_pieces(connection: Connection, method: str, command_id: str) -> bytes:
    """The JSON text of long params (`command.params`) or of a long answer (`command.response`)."""
    text = b""
    while True:
        read = await connection.call(method, {"commandId": command_id, "offset": len(text)})
        piece = b64decode(read["chunk"])
        text += piece
        if not piece or len(text) >= read["sizeBytes"]:
            return text


async def send_pieces(connection: Connection, envelope: CommandExecuteParams, text: bytes) -> None:
    """Sends the JSON text of a long answer. Where the next piece begins is what the daemon says it is."""
    room = (await connection.call("daemon.info"))["limits"]["maxMessageBytes"] - REQUEST_BYTES
    piece_bytes = min(MAX_PIECE_BYTES, room // 4 * 3)
    proof = {"commandId": envelope["commandId"], "leaseId": envelope["leaseId"], "sizeBytes": len(text)}
    offset = 0
    while True:
        piece = text[offset : offset + piece_bytes]
        final = offset + len(piece) == len(text)
        params = {**proof, "offset": offset, "chunk": b64encode(piece).decode(), "final": final}
        try:
            answered = await connection.call("command.answer", params)
            if final or "accepted" in answered:
                return
            received = answered["receivedBytes"]
        except PawlError as error:
            received = error.details.get("receivedBytes")
            if not isinstance(received, int) or received == offset:
                raise
        except ConnectionLost:
            if connection.state == "closed":
                raise
            continue  # Was it received? The next try is told.
        offset = received


def _text_of(error: BaseException, max_length: int) -> str:
    """The text of an error as the daemon takes it, which counts its length in UTF-16: up to two units for each."""
    try:
        text = str(error)
    except Exception:  # The class of the application that has no text, or fails to make one.
        text = ""
    text = (text or type(error).__name__)[: max_length // 2]
    return text.encode(errors="replace").decode().replace("\0", "?")
