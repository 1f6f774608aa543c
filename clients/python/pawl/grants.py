"""Claims, leases and reservations: renewed while they are used, and their holder is told when one is lost."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any, Awaitable, Callable, Dict, List, Optional, Sequence, Union

from .connection import Connection, Watcher
from .errors import ConnectionLost, PawlError, error_of

# A grant is renewed when this part of its time has passed: two renewals may fail before it is lost.
RENEW_FRACTION = 1 / 3
# A grant counts as lost when this part of its time is left, so that its holder stops before another begins.
MARGIN_FRACTION = 1 / 10
# For so long a daemon that was started again keeps what ends with its connection.
RESTART_GRACE_S = 5.0
MIN_RETRY_S = 0.02
MAX_RETRY_S = 1.0
DEFAULT_LEASE_S = 30.0
# How long the answer is waited for when something is given back; it ends by itself too.
RELEASE_TIMEOUT_S = 5.0


def default_owner() -> str:
    """The name under which this process asks, for people: the program and its pid."""
    program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    return f"{program.encode(errors='replace').decode()[:64]}:{os.getpid()}"


def is_loss(error: BaseException) -> bool:
    """True if a refusal says that what was to be renewed or ended is not held any more."""
    return isinstance(error, PawlError) and error.kind in ("claim_lost", "lease_lost", "not_found")


def is_passing(error: BaseException) -> bool:
    """True if the same call may succeed later."""
    return isinstance(error, ConnectionLost) or (isinstance(error, PawlError) and error.retryable)


class Grant(Watcher):
    """A grant of the daemon, renewed until its holder is done with it.

    `held`: renewed at each third of its time. `lost`: a renewal was refused, or none came through before a tenth of the
    time was left by the clock of this process, or the client was closed. `ended`: the holder is done.

    :param renew: renews, and gives what remains then, in seconds.
    :param on_lost: called once with the reason of a loss.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        what: str,
        lost_kind: str,
        lease_s: float,
        release_on: str,
        asked_at: float,
        remaining_s: float,
        renew: Callable[[], Awaitable[float]],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._what = what
        self._lost_kind = lost_kind
        self._lease_s = lease_s
        self._renew_call = renew
        self._on_lost = on_lost
        self.state = "held"
        self.reason: Optional[BaseException] = None
        # True if the grant is lost by the clock of this process only.
        self.overdue = False
        self.paused = False
        self._valid_until = 0.0
        # Until when a daemon that starts again keeps a grant that ends with its connection.
        self._grace_until = float("inf")
        # There is a new connection, and no answer on it yet to tell that a daemon has started.
        self._unanswered = False
        self._renewing = False
        self._renew_timer: Optional[asyncio.TimerHandle] = None
        self._deadline_timer: Optional[asyncio.TimerHandle] = None
        self._confirmed = asyncio.Event()
        # What was waited for may have been granted long ago, if this process was stopped meanwhile: it is renewed first.
        now = self._loop.time()
        waited = now - asked_at > lease_s * MARGIN_FRACTION
        if not waited:
            self._confirmed.set()
        self._extend(now if waited else asked_at, remaining_s)
        self._renew_at(now if waited else asked_at + lease_s * RENEW_FRACTION)
        if release_on == "disconnect":
            connection.watchers.append(self)
        self._let_go = connection.keep()
        connection.closed.add_done_callback(self._client_closed)

    async def confirmed(self) -> bool:
        """Waits until it is certain that the grant is held, or that it is not."""
        await self._confirmed.wait()
        return self.state == "held"

    def lose(self, reason: BaseException) -> None:
        if self.state == "held":
            self.reason = reason
            self._stop("lost")
            self._on_lost(reason)

    def end(self) -> None:
        """The holder is done with it."""
        if self.state == "held":
            self._stop("ended")

    async def end_by(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Makes the call that ends the grant, again while it fails for passing reasons and the grant is still held."""
        pause = MIN_RETRY_S
        while True:
            self.paused = True
            try:
                await call()
                return
            except (PawlError, ConnectionLost) as error:
                if not is_passing(error) or self.state == "lost" or self._connection.state == "closed":
                    raise
            self.paused = False
            self._renew_soon()
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_S)

    def up(self) -> None:
        self._unanswered = True
        self._set_deadline()
        self._renew_soon()

    def down(self) -> None:
        self._unanswered = False
        self._grace_until = self._loop.time() + RESTART_GRACE_S * (1 - MARGIN_FRACTION)
        self._set_deadline()

    refused = down

    def _client_closed(self, _: object) -> None:
        self.lose(ConnectionLost("The client was closed."))

    def _stop(self, state: str) -> None:
        self.state = state
        for timer in (self._renew_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        if self in self._connection.watchers:
            self._connection.watchers.remove(self)
        self._connection.closed.remove_done_callback(self._client_closed)
        self._let_go()
        self._confirmed.set()

    def _extend(self, since: float, remaining_s: float) -> None:
        self._valid_until = since + remaining_s - self._lease_s * MARGIN_FRACTION
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        grace_until = float("inf") if self._unanswered else self._grace_until
        self._deadline_timer = self._loop.call_at(min(self._valid_until, grace_until), self._overdue)

    def _overdue(self) -> None:
        self.overdue = True
        message = f"{self._what} could not be renewed in time, so another may hold it."
        self.lose(error_of(self._lost_kind, message, details={"reason": "not_renewed"}))

    def _renew_at(self, at: float) -> None:
        if self._renew_timer is not None:
            self._renew_timer.cancel()
        self._renew_timer = self._loop.call_at(at, self._renew_soon)

    def _renew_soon(self) -> None:
        # A renewal under way is sent again by itself when the connection changes.
        if self.state == "held" and not self._renewing and not self.paused:
            self._renewing = True
            self._connection.start(self._renew())

    async def _renew(self) -> None:
        asked_at = self._loop.time()
        try:
            remaining_s = await self._renew_call()
            if self.state == "held":
                self._end_grace()
                self._extend(asked_at, remaining_s)
                self._confirmed.set()
                self._renew_at(asked_at + self._lease_s * RENEW_FRACTION)
        except (PawlError, ConnectionLost) as error:
            if is_loss(error):
                self.lose(error)
            if self.state != "held":
                return
            if isinstance(error, PawlError):
                # A daemon runs, and its grace with it, unless it knows already that the grant is held.
                if error.kind == "provider_unavailable" and error.details.get("reason") != "not_configured":
                    self._end_grace()
                self._unanswered = False
                self._set_deadline()
            self._renew_at(self._loop.time() + min(max(self._lease_s / 20, MIN_RETRY_S), MAX_RETRY_S))
        finally:
            self._renewing = False

    def _end_grace(self) -> None:
        self._unanswered = False
        self._grace_until = float("inf")


class Held:
    """A lease or a reservation while it is held. `fencing_token` is to be sent along with every write.

    `lost` tells whether, and `reason` why, it was lost: then stop writing.
    """

    def __init__(self, owner: str, grants: List[Dict[str, Any]]) -> None:
        self.owner = owner
        # What was granted, as it travels: one lease for each name, or one reservation.
        self.grants = grants
        self.fencing_token: int = grants[0]["fencingToken"]
        # The proof, for guards of a `transact` and calls of one's own.
        self.proof: str = grants[0].get("leaseId") or grants[0]["reservationId"]
        self.reason: Optional[BaseException] = None

    @property
    def lost(self) -> bool:
        return self.reason is not None

    def check(self) -> None:
        """Raises the reason if it was lost."""
        if self.reason is not None:
            raise self.reason


class Holding:
    """Takes a lease or a reservation, keeps it, and gives it back."""

    def __init__(self, connection: Connection, kind: str, params: Dict[str, Any], wait: float) -> None:
        self._connection = connection
        self._kind = kind
        self._wait_s = wait
        verbs = {"lease": ("acquire", "leaseId"), "path": ("reserve", "reservationId")}
        self._grant_verb, self._proof_name = verbs[kind]
        self._params: Dict[str, Any] = {"owner": default_owner(), "releaseOn": "disconnect", **params}
        self._lease_s: float = self._params["ttlMs"] / 1000
        self._grant: Optional[Grant] = None
        self._stop_listening: Callable[[], None] = lambda: None
        self._held: Optional[Held] = None
        self.on_lost: Callable[[BaseException], object] = lambda reason: None
        names = params.get("name") or params.get("names") or params.get("root")
        self._what = f"The {'lease' if kind == 'lease' else 'reservation'} of {names!r}"

    async def begin(self, held_of: Callable[[str, List[Dict[str, Any]]], Held]) -> Held:
        """Takes it; raises `LeaseHeld` if another holds it and the wait has passed."""
        grants, asked_at = await self._acquire()
        held = self._held = held_of(self._params["owner"], grants)
        proof = {self._proof_name: held.proof}

        async def renew() -> float:
            params = {**proof, "ttlMs": self._params["ttlMs"]}
            return float((await self._connection.call(f"{self._kind}.heartbeat", params))["remainingMs"]) / 1000

        self._grant = Grant(
            self._connection,
            what=self._what,
            lost_kind="lease_lost",
            lease_s=self._lease_s,
            release_on=self._params["releaseOn"],
            asked_at=asked_at,
            remaining_s=grants[0]["remainingMs"] / 1000,
            renew=renew,
            on_lost=self._lost,
        )
        self._stop_listening = self._connection.on(f"{self._kind}.lost", self._told)
        try:
            held_still = await self._grant.confirmed()
        except asyncio.CancelledError:
            self._grant.end()
            self._stop_listening()
            self._connection._give_back(f"{self._kind}.{self._grant_verb}", {"lease": grants[0], "reservation": grants[0]})
            raise
        if not held_still:
            await self.end()
        return held

    async def end(self) -> None:
        """Gives it back; raises the reason if it was lost meanwhile."""
        grant, held = self._grant, self._held
        if grant is None or held is None:
            return
        self._stop_listening()
        grant.paused = True
        released = True
        if self._connection.state == "up":
            try:
                call = self._connection.call(f"{self._kind}.release", {self._proof_name: held.proof})
                released = (await asyncio.wait_for(call, RELEASE_TIMEOUT_S))["released"]
            except (PawlError, ConnectionLost, asyncio.TimeoutError):
                pass  # It ends by its time.
        grant.end()
        if grant.reason is not None:
            raise grant.reason
        if not released:
            raise error_of("lease_lost", f"{self._what} had ended before it was given back.")

    async def _acquire(self) -> Any:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._wait_s
        while True:
            asked_at = loop.time()
            left_ms = max(0, min(round(1000 * (give_up_at - asked_at)), 3_600_000))
            try:
                result = await self._connection.call(
                    f"{self._kind}.{self._grant_verb}", {**self._params, "waitMs": left_ms}
                )
                grants = result.get("leases") or [result.get("lease") or result.get("reservation")]
                return grants, asked_at
            except ConnectionLost:
                # What the lost connection was granted ended with it, so asking again does no harm.
                if self._params["releaseOn"] != "disconnect" or left_ms == 0 or self._connection.state == "closed":
                    raise
            await asyncio.sleep(0.1 * random.uniform(0.5, 1.0))

    def _told(self, params: Dict[str, Any]) -> None:
        if self._held is not None and self._grant is not None and params.get(self._proof_name) == self._held.proof:
            by_force = params.get("cause") == "broken"
            how = f"was broken by force: {params.get('reason')}" if by_force else "has ended"
            self._grant.lose(error_of("lease_lost", f"{self._what} {how}.", details={"reason": params.get("cause")}))

    def _lost(self, reason: BaseException) -> None:
        if self._held is not None:
            self._held.reason = reason
        self.on_lost(reason)


def lease_params(names: Sequence[str], **given: Any) -> Dict[str, Any]:
    """The params of a lease of one name or of several."""
    if not names:
        raise error_of("invalid_params", "A lease needs a name.")
    named: Dict[str, Any] = {"name": names[0]} if len(names) == 1 else {"names": list(names)}
    return {**named, **only_given(given)}


def path_params(root: str, patterns: Union[str, Sequence[str]], **given: Any) -> Dict[str, Any]:
    """The params of a reservation."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    return {"root": os.path.abspath(root), "patterns": listed, **only_given(given)}


def only_given(params: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
