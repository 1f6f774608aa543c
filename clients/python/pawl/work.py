"""Loops that take work from the daemon: claims of queues, and commands by push."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Awaitable, Callable, Dict, List, Optional, Set, Union

from .connection import Connection, RequestFailure, Watcher, logger
from .errors import ConnectionLost, PawlError, Postpone, error_of
from .grants import Grant, default_owner, is_loss, is_passing, only_given
from .types import Batch, Claim, Envelope

ASK_WAIT_MS = 30_000
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
MAX_CONCURRENCY = 256
MAX_ERROR_LENGTH = 16_384
# Refusals that stay the same however often one asks.
FOR_GOOD = ("invalid_request", "invalid_params", "method_not_found", "read_only", "forbidden", "exhausted")


class Work:
    """The batches of one claim, as a handler gets them. `fencing_token` is to be sent along with every write."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.batches: List[Batch] = claim["batches"]
        self.payloads: List[Any] = [payload for batch in self.batches for payload in batch["payloads"]]
        self.fencing_token: int = claim["fencingToken"]
        # Why to stop: `ClaimLost` if another may be doing the work, or is to.
        self.reason: Optional[BaseException] = None

    @property
    def lost(self) -> bool:
        return self.reason is not None

    def check(self) -> None:
        """Raises `ClaimLost` if the claim was lost or cancelled: for a handler that cannot be interrupted."""
        if self.reason is not None:
            raise self.reason


class Worker:
    """Works on a queue until it is stopped; survives restarts of the daemon.

    :param perform: has the handler do the work; its result is kept as the batches' result, an error gives them back.
    :param interrupt: told once of a loss or a cancel, to end what `perform` does.
    """

    def __init__(
        self,
        connection: Connection,
        queue: Union[str, List[str]],
        perform: Callable[[Work], Awaitable[Any]],
        interrupt: Callable[[Work, asyncio.Task[Any]], object],
        make: Callable[[Claim], Work],
        *,
        concurrency: int = 1,
        lease: float = 30.0,
        owner: Optional[str] = None,
        max_batches: int = 1,
        boundary: Optional[str] = None,
        release_on: str = "disconnect",
        on_complete: Optional[Callable[[Any], None]] = None,
        on_error: Optional[Callable[[BaseException], None]] = None,
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise error_of("invalid_params", f"concurrency is from 1 to {MAX_CONCURRENCY}, not {concurrency}.")
        self._connection = connection
        self._perform_work = perform
        self._interrupt = interrupt
        self._make = make
        self._lease_s = lease
        self._release_on = release_on
        self._on_complete = on_complete or (lambda work: None)
        self._on_error = on_error or (lambda error: logger.warning("%s", error))
        queues: Dict[str, Any] = {"queue": queue} if isinstance(queue, str) else {"queues": list(queue)}
        self._claim_params = {
            **queues,
            "owner": owner or default_owner(),
            "maxBatches": max_batches,
            "leaseMs": round(lease * 1000),
            "releaseOn": release_on,
            "waitMs": ASK_WAIT_MS,
            **only_given({"boundary": boundary}),
        }
        self._stopping = False
        self._refusal: Optional[PawlError] = None
        self._asking: Set[asyncio.Task[Any]] = set()
        self._let_go = connection.keep()
        self.done = connection.start(self._run(concurrency))

    def stop(self) -> None:
        """Takes nothing more. What runs is worked on to its end."""
        self._stopping = True
        for task in list(self._asking):
            task.cancel()

    async def _run(self, concurrency: int) -> None:
        try:
            await asyncio.gather(*(self._slot() for _ in range(concurrency)))
        finally:
            self._let_go()
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
            except asyncio.CancelledError:
                if self._stopping and asking.cancelled():
                    return
                asking.cancel()
                raise
            except (PawlError, ConnectionLost) as error:
                if isinstance(error, PawlError) and error.kind in FOR_GOOD:
                    self._refusal = self._refusal or error
                    return self.stop()
                # A daemon that was started again is no news.
                if not (isinstance(error, ConnectionLost) and error.may_have_taken_effect):
                    self._on_error(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, MAX_PAUSE_S)
                continue
            finally:
                self._asking.discard(asking)
            if claim is not None:
                await self._perform(claim, asked_at)

    async def _perform(self, claim: Claim, asked_at: float) -> None:
        work = self._make(claim)
        proof = {"claimId": claim["claimId"], "leaseToken": claim["leaseToken"]}
        task = asyncio.ensure_future(self._perform_work(work))

        def stop(reason: BaseException) -> None:
            if work.reason is None:
                work.reason = reason
                self._interrupt(work, task)

        def cancelled(reason: Any = None) -> None:
            stop(error_of("claim_lost", f"The claim is cancelled: {reason}.", details={"reason": "cancelling"}))

        async def renew() -> float:
            renewed = await self._connection.call("queue.renew", {**proof, "leaseMs": round(self._lease_s * 1000)})
            if renewed.get("cancelling"):
                cancelled()
            return float(renewed["remainingMs"]) / 1000

        def told_lost(params: Dict[str, Any]) -> None:
            if params.get("claimId") == claim["claimId"]:
                cause = params.get("cause")
                grant.lose(error_of("claim_lost", f"The claim was lost: {cause}.", details={"reason": cause}))

        def told_cancelling(params: Dict[str, Any]) -> None:
            if params.get("claimId") == claim["claimId"]:
                cancelled(params.get("reason"))

        grant = Grant(
            self._connection,
            what=f"The claim {claim['claimId']}",
            lost_kind="claim_lost",
            lease_s=self._lease_s,
            release_on=self._release_on,
            asked_at=asked_at,
            remaining_s=claim["remainingMs"] / 1000,
            renew=renew,
            on_lost=stop,
        )
        stops = [self._connection.on("claim.lost", told_lost), self._connection.on("claim.cancelling", told_cancelling)]
        try:
            await self._finish(work, grant, proof, task)
        except (PawlError, ConnectionLost) as error:
            self._on_error(error)
        finally:
            grant.end()
            for stop_listening in stops:
                stop_listening()

    async def _finish(self, work: Work, grant: Grant, proof: Dict[str, Any], task: asyncio.Task[Any]) -> None:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # The worker itself is cancelled: the handler is ended, and the work is another's.
            task.cancel()
            await asyncio.wait([task])
            self._connection.start(self._connection._quietly("queue.abandon", proof))
            raise
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if grant.reason is not None and not (failure is None and grant.overdue):
            raise grant.reason
        if failure is None:
            # A claim that is lost by our clock only is completed all the same, if nobody else has taken it.
            result = only_given({"result": task.result()})
            await grant.end_by(lambda: self._connection.call("queue.complete", {**proof, **result}))
            return self._on_complete(work)
        how: Dict[str, Any] = {}
        if isinstance(failure, Postpone):
            how = {"delayMs": round(failure.delay * 1000)}
        elif work.reason is None and not isinstance(failure, asyncio.CancelledError):
            logger.info("The handler of %s failed.", proof["claimId"], exc_info=failure)
            how = {"error": _text_of(failure)}
        try:
            await grant.end_by(lambda: self._connection.call("queue.abandon", {**proof, **how}))
        except PawlError as error:
            # It was given back by a first try whose answer was lost, or was taken back: it is where it should be.
            if not is_loss(error):
                raise
        if work.reason is not None:
            raise work.reason


def _text_of(error: BaseException) -> str:
    text = (str(error) or type(error).__name__)[:MAX_ERROR_LENGTH]
    return text.encode(errors="replace").decode().replace("\0", "?")


class CommandFailed(Exception):
    """Raised by the handler of a command: the answer is an error with this code."""

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Receiver(Watcher):
    """Carries out the commands of one deployment, which the daemon sends over the connection.

    :param perform: has the handler of a command carry it out.
    :param interrupt: told when nobody waits for the answer any more.
    """

    def __init__(
        self,
        connection: Connection,
        deployment: str,
        perform: Callable[[Envelope], Awaitable[Any]],
        interrupt: Callable[[str, BaseException, asyncio.Task[Any]], object],
        *,
        concurrency: int = 1,
        owner: Optional[str] = None,
        **more: Any,
    ) -> None:
        self._connection = connection
        self._perform = perform
        self._interrupt = interrupt
        self._deployment = deployment
        self._params: Dict[str, Any] = {"deployment": deployment, "owner": owner or default_owner(), "max": concurrency, **more}
        self._running: Dict[str, asyncio.Task[Any]] = {}
        self._receivers: Dict[str, Receiver] = connection.__dict__.setdefault("receivers", {})
        if deployment in self._receivers:
            raise error_of("invalid_params", f"This client serves {deployment!r} already.")
        self._receivers[deployment] = self
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._let_go = connection.keep()
        connection.watchers.append(self)
        connection.handle("command.execute", self._execute)
        self._stop_listening = connection.on("command.cancelled", self._cancelled)
        connection.closed.add_done_callback(lambda _: self._end())
        self.up()

    def up(self) -> None:
        self._connection.start(self._subscribe())

    def down(self) -> None:
        """The daemon delivers anew what this connection had."""
        for command_id, task in list(self._running.items()):
            self._interrupt(command_id, ConnectionLost("The connection ended, so the command is delivered anew."), task)

    def refused(self) -> None:
        pass

    async def stop(self) -> None:
        """Has nothing more sent, and waits for what runs."""
        if not self.done.done() and self._connection.state == "up":
            await self._connection._quietly("command.serve", {**self._params, "max": 0})
        while self._running:
            await asyncio.wait(list(self._running.values()))
            await asyncio.sleep(0)
        self._end()

    def _end(self, refusal: Optional[PawlError] = None) -> None:
        self._receivers.pop(self._deployment, None)
        self._let_go()
        self._stop_listening()
        if self in self._connection.watchers:
            self._connection.watchers.remove(self)
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
                if error.kind in FOR_GOOD:
                    return self._end(error)
                logger.warning("%s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_S)

    async def _execute(self, params: Dict[str, Any]) -> Any:
        receiver = self._receivers.get(params["deployment"])
        if receiver is None:
            raise RequestFailure({"code": -32601, "message": f"This client does not serve {params['deployment']}."})
        return await receiver._carry_out(params)  # type: ignore[arg-type]

    async def _carry_out(self, envelope: Envelope) -> Any:
        command_id = envelope["commandId"]
        task = asyncio.ensure_future(self._perform(envelope))
        self._running[command_id] = task
        try:
            await asyncio.wait([task])
        finally:
            del self._running[command_id]
        failure = asyncio.CancelledError("The command was cancelled.") if task.cancelled() else task.exception()
        if failure is None:
            return task.result()
        code, details = getattr(failure, "code", "HANDLER_ERROR"), getattr(failure, "details", None)
        if not isinstance(failure, CommandFailed):
            code, details = "HANDLER_ERROR", None
        data = {"code": code, **only_given({"details": details})}
        raise RequestFailure({"code": 1, "message": _text_of(failure)[:4096], "data": data})

    def _cancelled(self, params: Dict[str, Any]) -> None:
        task = self._running.get(params.get("commandId", ""))
        if task is not None:
            why = f"The command {params['commandId']} has ended: {params.get('reason')}."
            self._interrupt(params["commandId"], error_of("lease_lost", why), task)
