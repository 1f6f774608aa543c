"""Claims, leases and reservations: renewed while they are used, and their holder is told when one is lost."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import random
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from .connection import Connection, Watcher, only_given
from .errors import ConnectionLost, PawlError, error_of, is_loss, is_passing

# A grant is renewed when this part of its time has passed: two renewals may fail before it is lost.
RENEW_FRACTION = 1 / 3
# A grant counts as lost when this part of its time is left, so that its holder stops before another begins.
MARGIN_FRACTION = 1 / 10
# For so long a daemon that was started again keeps what ends with its connection.
RESTART_GRACE_S = 5.0
MIN_RETRY_S = 0.02
MAX_RETRY_S = 1.0
# How long the answer is waited for when something is given back; it ends by itself too.
RELEASE_TIMEOUT_S = 5.0
NEVER = float("inf")

# The task of the outermost body that holds something: what is held and waited for within it belongs together, so that the
# daemon sees who waits for whom. A thread begins without one.
TASK: contextvars.ContextVar[Optional[str]] = contextvars.ContextVar("pawl_task", default=None)
TASKS = itertools.count(1)

Told = Callable[[BaseException], object]


class Noun(NamedTuple):
    """The names that a kind of grant has at the socket."""

    take: str
    renew: str
    release: str
    duration: str
    proof: Tuple[str, ...]
    lost: str
    lost_kind: str


CLAIM = Noun("queue.claim", "queue.renew", "queue.abandon", "leaseMs", ("claimId", "leaseToken"), "claim.lost",
             "claim_lost")  # fmt: skip
LEASE = Noun("lease.acquire", "lease.heartbeat", "lease.release", "ttlMs", ("leaseId",), "lease.lost", "lease_lost")
PATH = Noun("path.reserve", "path.heartbeat", "path.release", "ttlMs", ("reservationId",), "path.lost", "lease_lost")


def default_owner() -> str:
    """The name under which this process asks, for people: the program and its pid."""
    program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    return f"{program.encode(errors='replace').decode()[:64]}:{os.getpid()}"


class Grant(Watcher):
    """What this process holds: `lost` tells whether, and `reason` why, to stop. `fencing_token` is to be sent along
    with every write, `proof` has what guards of a `transact` and calls of one's own need.

    `held`: renewed at each third of its time. `lost`: a renewal was refused, or none came through before a tenth of the
    time was left by the clock of this process, or the client was closed. `ended`: the holder is done.
    """

    def __init__(
        self, connection: Connection, noun: Noun, what: str, granted: Any, *,
        asked_at: float, lease_s: float, bound: bool, on_loss: Optional[Told] = None,
    ) -> None:  # fmt: skip
        self.fencing_token: int = granted["fencingToken"]
        self.proof: Dict[str, str] = {name: granted[name] for name in noun.proof}
        self.reason: Optional[BaseException] = None
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._noun = noun
        self._what = what
        self._lease_s = lease_s
        # Ends with its connection, so that only the grace of a restart is left without one.
        self._bound = bound
        self._on_loss: Told = on_loss or (lambda reason: None)
        self._state = "held"
        # True if it is lost by the clock of this process only.
        self._overdue = False
        self._paused = self._renewing = False
        # Until when a daemon that starts again keeps it.
        self._grace_until = NEVER
        # There is a new connection, and no answer on it yet to tell that a daemon has started.
        self._unanswered = False
        self._confirmed = asyncio.Event()
        self._timer: Optional[asyncio.TimerHandle] = None
        now = self._loop.time()
        if now - asked_at > lease_s * MARGIN_FRACTION:
            # It was waited for, and may have been granted long ago if this process was stopped meanwhile.
            self._extend(now, granted["remainingMs"])
            self._renew_at = now
        else:
            self._extend(asked_at, granted["remainingMs"])
            self._confirmed.set()
        self._stops = [connection.on(noun.lost, self._told), connection.watch(self)]
        self._look()

    @property
    def lost(self) -> bool:
        return self.reason is not None

    def check(self) -> None:
        """Raises the reason if it was lost, or is to be given back."""
        if self.reason is not None:
            raise self.reason

    def connected(self) -> None:
        self._unanswered = True
        self._renew_at = self._loop.time()
        self._look()

    def disconnected(self) -> None:
        self._unanswered = False
        self._grace_until = self._loop.time() + RESTART_GRACE_S * (1 - MARGIN_FRACTION)
        self._look()

    def closed(self) -> None:
        self._lose(ConnectionLost("The client was closed."))

    async def _is_confirmed(self) -> bool:
        """Waits until it is certain that it is held, or that it is not."""
        await self._confirmed.wait()
        return self._state == "held"

    async def _end_by(self, method: str, params: Dict[str, Any]) -> None:
        """Makes the call that ends it, again while that fails for passing reasons and it is still held."""
        pause = MIN_RETRY_S
        while True:
            # A renewal that came after the end would be refused.
            self._paused = True
            try:
                await self._connection.call(method, {**self.proof, **params})
                return
            except (PawlError, ConnectionLost) as error:
                if not is_passing(error) or self._state == "lost" or self._connection.state == "closed":
                    raise
            self._paused = False
            self._look()
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_S)

    def _end(self, state: str = "ended") -> None:
        if self._state == "held":
            self._state = state
            for stop in self._stops:
                stop()
            self._confirmed.set()
            self._look()

    def _lose(self, reason: BaseException) -> None:
        if self._state == "held":
            self._end("lost")
            self._stop_holder(reason)

    def _stop_holder(self, reason: BaseException) -> None:
        if self.reason is None:
            self.reason = reason
            self._on_loss(reason)

    def _cancel(self, reason: Any = None) -> None:
        """Somebody wants the work to end: it is held until it is given back."""
        message = f"{self._what} is cancelled{'' if reason is None else f': {reason}'}."
        self._stop_holder(error_of("claim_lost", message, details={"reason": "cancelling"}))

    def _told(self, params: Dict[str, Any]) -> None:
        name = self._noun.proof[0]
        if params.get(name) == self.proof[name]:
            cause = params.get("cause")
            message = f"{self._what} has ended: {params.get('reason') or cause}."
            self._lose(error_of(self._noun.lost_kind, message, details={"reason": cause}))

    def _extend(self, since: float, remaining_ms: int) -> None:
        self._valid_until = since + remaining_ms / 1000 - self._lease_s * MARGIN_FRACTION
        self._renew_at = since + self._lease_s * RENEW_FRACTION

    def _look(self) -> None:
        """Loses the grant when its time is over, renews it when that is due, and looks again when either is next."""
        if self._timer is not None:
            self._timer.cancel()
        if self._state != "held":
            return
        now = self._loop.time()
        grace_until = self._grace_until if self._bound and not self._unanswered else NEVER
        deadline = min(self._valid_until, grace_until)
        if now >= deadline:
            self._overdue = True
            message = f"{self._what} could not be renewed in time, so another may hold it."
            return self._lose(error_of(self._noun.lost_kind, message, details={"reason": "not_renewed"}))
        # A renewal under way is sent again by itself when the connection changes.
        if not self._renewing and not self._paused:
            if now >= self._renew_at:
                self._renewing = True
                self._connection.start(self._renew())
            else:
                deadline = min(deadline, self._renew_at)
        self._timer = self._loop.call_at(deadline, self._look)

    async def _renew(self) -> None:
        asked_at = self._loop.time()
        try:
            params: Dict[str, Any] = {**self.proof, self._noun.duration: round(self._lease_s * 1000)}
            renewed = await self._connection.call(self._noun.renew, params)
            self._unanswered, self._grace_until = False, NEVER
            self._extend(asked_at, renewed["remainingMs"])
            if renewed.get("cancelling") and self._state == "held":
                self._cancel()
            self._confirmed.set()
        except (PawlError, ConnectionLost) as error:
            if is_loss(error):
                self._lose(error)
            if isinstance(error, PawlError):
                # A daemon runs, and its grace with it, unless it knows already that the grant is held.
                self._unanswered = False
                if error.kind == "provider_unavailable" and error.details.get("reason") != "not_configured":
                    self._grace_until = NEVER
            self._renew_at = self._loop.time() + min(max(self._lease_s / 20, MIN_RETRY_S), MAX_RETRY_S)
        finally:
            self._renewing = False
            self._look()


class Held(Grant):
    """A lease or a reservation while it is held. `granted` has what was granted, as it travels: a lease for each name,
    or one reservation."""

    granted: List[Any]
    owner: str


class Lock:
    """Takes a lease or a reservation, keeps it, and gives it back."""

    def __init__(
        self, connection: Connection, noun: Noun, named: Dict[str, Any], ttl: float, wait: float,
        on_loss: Optional[Told], more: Dict[str, Any],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._noun = noun
        self._what = f"The {'lease' if noun is LEASE else 'reservation'} of {next(iter(named.values()))!r}"
        given = only_given({"ttlMs": round(ttl * 1000), **more})
        self._params: Dict[str, Any] = {"owner": default_owner(), "releaseOn": "disconnect", **named, **given}
        self._bound = self._params["releaseOn"] == "disconnect"
        self._wait_s = wait
        self._on_loss = on_loss
        self._held: Optional[Held] = None
        # What it is held for, this time.
        self._task: Optional[str] = None
        self._token: Optional[contextvars.Token[Optional[str]]] = None

    def _enter_task(self) -> None:
        """Takes the task of the body that this use of it is within, or a new one, unless it was given one."""
        self._held = None
        self._task = self._params.get("task") or TASK.get() or f"{os.getpid()}-{next(TASKS)}"
        self._token = TASK.set(self._task)

    def _leave_task(self) -> None:
        token, self._token = self._token, None
        try:
            if token is not None:
                TASK.reset(token)
        except ValueError:
            pass  # It ends in another context than it began in, which nothing else runs in.

    async def _begin(self) -> Held:
        """Takes it; raises `LeaseHeld` if another holds it and the wait has passed."""
        result, asked_at = await self._take()
        granted = result.get("leases") or [result.get("lease") or result.get("reservation")]
        held = self._held = Held(
            self._connection, self._noun, self._what, granted[0], asked_at=asked_at,
            lease_s=self._params["ttlMs"] / 1000, bound=self._bound, on_loss=self._on_loss,
        )  # fmt: skip
        held.granted, held.owner = granted, self._params["owner"]
        try:
            if not await held._is_confirmed():
                held.check()
        except asyncio.CancelledError:
            held._end()
            self._connection.give_back(self._noun.take, result)
            raise
        return held

    async def _release(self) -> None:
        """Gives it back; raises the reason if it was lost meanwhile."""
        held = self._held
        if held is None:
            return
        held._paused = True
        released = True
        if self._connection.state == "up":
            try:
                call = self._connection.call(self._noun.release, held.proof)
                released = (await asyncio.wait_for(call, RELEASE_TIMEOUT_S))["released"]
            except (PawlError, ConnectionLost, asyncio.TimeoutError):
                pass  # It ends by its time.
        held._end()
        held.check()
        if not released:
            raise error_of("lease_lost", f"{self._what} had ended before it was given back.")

    async def _take(self) -> Tuple[Dict[str, Any], float]:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._wait_s
        while True:
            asked_at = loop.time()
            left_ms = max(0, min(round(1000 * (give_up_at - asked_at)), 3_600_000))
            try:
                params = {**self._params, **only_given({"task": self._task}), "waitMs": left_ms}
                return await self._connection.call(self._noun.take, params), asked_at
            except ConnectionLost:
                # What the lost connection was granted ended with it, so asking again does no harm.
                if not self._bound or left_ms == 0 or self._connection.state == "closed":
                    raise
            await asyncio.sleep(0.1 * random.uniform(0.5, 1.0))


def lease_names(names: Sequence[str]) -> Dict[str, Any]:
    """The param that names one lease or several."""
    if not names:
        raise error_of("invalid_params", "A lease needs a name.")
    return {"name": names[0]} if len(names) == 1 else {"names": list(names)}


def path_names(root: str, patterns: Union[str, Sequence[str]]) -> Dict[str, Any]:
    """The params that name the files of a reservation."""
    return {"root": os.path.abspath(root), "patterns": [patterns] if isinstance(patterns, str) else list(patterns)}
