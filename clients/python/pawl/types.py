"""The shapes of results, as they travel. Fields may be added by a newer daemon. Times are milliseconds since the epoch."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict


class Number(TypedDict):
    type: str
    seq: int
    id: str


class Block(TypedDict):
    type: str
    first: int
    last: int
    firstId: str
    lastId: str


class _Batch(TypedDict):
    batchId: str
    queue: str
    enqueueSeq: int
    payloads: List[Any]
    state: str
    attempt: int
    maxAttempts: int
    enqueuedAt: int
    availableAt: int


class Batch(_Batch, total=False):
    priority: int
    key: Optional[str]
    sourceKey: Optional[str]
    deliveryPolicy: str
    slotPolicy: str
    mergeKey: Any
    retry: Optional[Dict[str, Any]]
    expiresAt: Optional[int]
    after: List[str]
    trace: Dict[str, str]
    claim: Optional[Dict[str, Any]]
    progress: Dict[str, Any]
    checkpoint: Any
    result: Any
    lastError: Optional[str]


class _Enqueued(TypedDict):
    batch: Batch
    created: bool


class Enqueued(_Enqueued, total=False):
    outcome: str


class _Claim(TypedDict):
    claimId: str
    leaseToken: str
    fencingToken: int
    queue: str
    owner: str
    claimedAt: int
    expiresAt: int
    remainingMs: int
    batches: List[Batch]


class Claim(_Claim, total=False):
    parents: Dict[str, Any]


class _Renewed(TypedDict):
    expiresAt: int
    remainingMs: int


class Renewed(_Renewed, total=False):
    cancelling: bool


class _Lease(TypedDict):
    name: str
    leaseId: str
    fencingToken: int
    owner: str
    acquiredAt: int
    expiresAt: int
    remainingMs: int


class Lease(_Lease, total=False):
    mode: str
    slots: int
    members: List[str]


class Reservation(TypedDict):
    reservationId: str
    root: str
    patterns: List[str]
    mode: str
    fencingToken: int
    expiresAt: int
    remainingMs: int


class _Event(TypedDict):
    kind: str


class Event(_Event, total=False):
    """What happened; kind `gap` says that some may be missing: list anew what you follow."""

    cursor: str
    at: int
    topic: str
    id: str
    by: Any


class Envelope(TypedDict):
    protocol: str
    commandId: str
    deployment: str
    target: str
    command: str
    attempt: int
    deadline: Optional[int]
    executionMs: Optional[int]
    params: Any
    leaseId: str
