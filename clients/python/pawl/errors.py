"""Errors of the daemon by their kind, and the loss of the connection."""

from __future__ import annotations

import re
from typing import Any, Dict, Optional


class PawlError(Exception):
    """A refusal of the daemon. Match on `kind`, or on the subclasses here; show `message` to people.

    `retryable` says whether the same request may succeed later; `details` depend on the kind.
    """

    def __init__(
        self, kind: str, message: str, *, code: int = -32603, retryable: bool = False,
        details: Optional[Dict[str, Any]] = None,
    ) -> None:  # fmt: skip
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

    def __init__(self, message: str, method: Optional[str] = None, *, may_have_taken_effect: bool = False) -> None:
        super().__init__(message)
        self.method = method
        self.may_have_taken_effect = may_have_taken_effect


class Postpone(Exception):
    """Raised by a handler that cannot do the work now: it is given back, for nobody before `delay` seconds have passed,
    and this is not counted as an attempt."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(f"The work is postponed by {delay} s.")
        self.delay = delay


class CommandFailed(Exception):
    """Raised by the handler of a command: the answer is an error with this code."""

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


# By kind: `lease_held` is `LeaseHeld`.
_CLASSES = {re.sub(r"(?<!^)(?=[A-Z])", "_", each.__name__).lower(): each for each in PawlError.__subclasses__()}


def error_of(kind: str, message: str, **more: Any) -> PawlError:
    """The error of a kind, as the class of that kind if it has one."""
    return _CLASSES.get(kind, PawlError)(kind, message, **more)


def from_object(error: Any) -> PawlError:
    """The error that the `error` member of a JSON-RPC response stands for."""
    error = error if isinstance(error, dict) else {}
    details = dict(error["data"]) if isinstance(error.get("data"), dict) else {}
    kind, retryable = str(details.pop("kind", "internal")), details.pop("retryable", False) is True
    code = error["code"] if isinstance(error.get("code"), int) else -32603
    return error_of(kind, str(error.get("message")), code=code, retryable=retryable, details=details)


def is_loss(error: BaseException) -> bool:
    """True if a refusal says that what was to be renewed or ended is not held any more."""
    return isinstance(error, PawlError) and error.kind in ("claim_lost", "lease_lost", "not_found")


def is_passing(error: BaseException) -> bool:
    """True if the same call may succeed later."""
    return isinstance(error, ConnectionLost) or (isinstance(error, PawlError) and error.retryable)


def is_for_good(error: BaseException) -> bool:
    """True for a refusal that stays the same however often one asks."""
    kinds = ("invalid_request", "invalid_params", "method_not_found", "read_only", "forbidden", "exhausted")
    return isinstance(error, PawlError) and error.kind in kinds and not error.retryable
