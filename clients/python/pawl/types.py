"""The shapes of results, as they travel. Made from the nouns by `npm run openrpc`, not by hand."""

from typing import Any, Dict, List, Optional, TypedDict


class NumberedId(TypedDict):
    """A number of a type, and the id made of it."""

    type: str
    seq: int
    id: str


class SequenceReserveResult(TypedDict):
    """Result of sequence.reserve."""

    type: str
    first: int
    last: int
    firstId: str
    lastId: str


class MergeGroup(TypedDict):
    """A group of a name that the caller chose."""

    group: str


class Retry(TypedDict):
    """How long a batch or a command rests after a delivery that ended without success: `baseMs * factor^(n - 1)`, at most `maxMs`."""

    baseMs: int
    factor: float
    maxMs: int
    jitter: bool


class _Trace(TypedDict):
    traceparent: str


class Trace(_Trace, total=False):
    """The trace that the work belongs to (W3C Trace Context), handed on with the claim and no part of the content."""

    tracestate: str


class BatchHolder(TypedDict):
    """Who holds a batch now."""

    owner: str
    claimId: str
    fencingToken: int
    expiresAt: int
    remainingMs: int


class Progress(TypedDict, total=False):
    """How far the work has come, as its holder said."""

    percent: float
    note: str


class _Batch(TypedDict):
    batchId: str
    queue: str
    enqueueSeq: int
    payloads: List[Any]
    priority: int
    key: Optional[str]
    sourceKey: Optional[str]
    deliveryPolicy: str
    slotPolicy: str
    mergeKey: Any
    state: str
    attempt: int
    maxAttempts: int
    retry: Optional[Retry]
    enqueuedAt: int
    availableAt: int


class Batch(_Batch, total=False):
    """Work of a queue: payloads that are claimed, completed and retried together."""

    expiresAt: int
    remainingMs: int
    after: List[str]
    when: str
    trace: Trace
    claim: BatchHolder
    progress: Progress
    checkpoint: Any
    result: Any
    lastError: str


class QueueEnqueueResult(TypedDict):
    """Result of queue.enqueue."""

    batch: Batch
    created: bool
    outcome: str


class QueueRenewResult(TypedDict):
    """Result of queue.renew."""

    expiresAt: int
    remainingMs: int
    cancelling: bool


class _Parent(TypedDict):
    state: str


class Parent(_Parent, total=False):
    """A batch that a claimed one has waited for."""

    result: Any


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
    """Batches that one owner works on, until the claim ends."""

    parents: Dict[str, Parent]


class _Lease(TypedDict):
    name: str
    leaseId: str
    fencingToken: int
    owner: str
    mode: str
    slots: int
    acquiredAt: int
    expiresAt: int
    remainingMs: int


class Lease(_Lease, total=False):
    """A lease as its holder has it."""

    members: List[str]


class Reservation(TypedDict):
    """A reservation as its holder has it."""

    reservationId: str
    root: str
    patterns: List[str]
    mode: str
    fencingToken: int
    expiresAt: int
    remainingMs: int


class _CommandExecuteParams(TypedDict):
    leaseId: str
    protocol: str
    commandId: str
    deployment: str
    target: str
    command: str
    attempt: int
    deadline: Optional[int]
    executionMs: Optional[int]
    params: Any


class CommandExecuteParams(_CommandExecuteParams, total=False):
    """Params of command.execute."""

    checkpoint: Any
    trace: Trace
