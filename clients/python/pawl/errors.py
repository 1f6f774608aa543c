"""Errors of the daemon by their kind, and the loss of the connection."""

from __future__ import annotations

from typing import Any, Dict, Optional, Type

__all__ = [
    "Cancelled", "ClaimLost", "Conflict", "ConnectionLost", "Exhausted", "LeaseHeld", "LeaseLost", "NotFound",
    "PawlError", "Postpone", "ProviderUnavailable", "Unavailable", "WouldDeadlock", "error_of",
]  # fmt: skip


class PawlError(Exception):
    """A refusal of the daemon. Match on `kind`, or on the subclasses here; show `message` to people.

    `retryable` says whether the same request may succeed later; `details` depend on the kind.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        code: int = -32603,
        retryable: bool = False,
        details: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.code = code
        self.retryable = retryable
        self.details: Dict[str, Any] = details or {}


class NotFound(PawlError):
    """`details["what"]` says which thing does not exist."""


class Conflict(PawlError):
    """A key was used before with other content."""


class LeaseHeld(PawlError):
    """Another holds it: `details["holder"]` says who, and for how long."""


class ClaimLost(PawlError):
    """The claim has ended: another may be doing the work. Stop."""


class LeaseLost(PawlError):
    """The lease, the reservation or the delivery of a command has ended: another may hold it. Stop writing."""


class Exhausted(PawlError):
    """A counter or a bounded thing is full."""


class Unavailable(PawlError):
    """The daemon cannot write now, or is stopping."""


class Cancelled(PawlError):
    """A wait was ended by `rpc.cancel`."""


class ProviderUnavailable(PawlError):
    """The provider of a lease could not be reached. The lease is not lost by that."""


class WouldDeadlock(PawlError):
    """Waiting would close a circle of processes that wait for each other: `details["cycle"]`."""


class ConnectionLost(ConnectionError):
    """The connection ended, or there is none.

    What can be repeated was, for as long as `reconnect` allows. `may_have_taken_effect` is False only if the request
    certainly was not performed.
    """

    def __init__(
        self, message: str, method: Optional[str] = None, *, may_have_taken_effect: bool = False
    ) -> None:
        super().__init__(message)
        self.method = method
        self.may_have_taken_effect = may_have_taken_effect


class Postpone(Exception):
    """Raised by a handler that cannot do the work now: it is given back, and this is not counted as an attempt.

    `delay` is the time in seconds for which nobody gets it.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(f"The work is postponed by {delay} s.")
        self.delay = delay


_CLASSES: Dict[str, Type[PawlError]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "lease_held": LeaseHeld,
    "claim_lost": ClaimLost,
    "lease_lost": LeaseLost,
    "exhausted": Exhausted,
    "unavailable": Unavailable,
    "cancelled": Cancelled,
    "provider_unavailable": ProviderUnavailable,
    "would_deadlock": WouldDeadlock,
}


def error_of(kind: str, message: str, **more: Any) -> PawlError:
    """The error of a kind, as the class of that kind if it has one."""
    return _CLASSES.get(kind, PawlError)(kind, message, **more)


def from_object(error: Any) -> PawlError:
    """The error that the `error` member of a JSON-RPC response stands for."""
    error = error if isinstance(error, dict) else {}
    data = error.get("data")
    details = dict(data) if isinstance(data, dict) else {}
    kind, retryable = str(details.pop("kind", "internal")), details.pop("retryable", False) is True
    code = error.get("code")
    return error_of(
        kind,
        str(error.get("message")),
        code=code if isinstance(code, int) else -32603,
        retryable=retryable,
        details=details,
    )
