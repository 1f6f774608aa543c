"""Client of pawl: numbers that never repeat, work that one process holds, leases, commands. Standard library only.

    with pawl.connect() as client:
        print(client.next("FR")["id"])
        with client.lock("deploy", wait=60) as lease:
            deploy(lease.fencing_token)
        client.work("mail", lambda work: send(work.payloads)).join()

`pawl.aio` is the same for asyncio.
"""

from . import aio
from .blocking import Client, Work, Worker
from .errors import (
    Cancelled, ClaimLost, CommandFailed, Conflict, ConnectionLost, Exhausted, LeaseHeld, LeaseLost, NotFound, PawlError,
    Postpone, ProviderUnavailable, Unavailable, WouldDeadlock,
)  # fmt: skip
from .grants import Held
from .socket_path import socket_paths

connect = Client

__all__ = [
    "Cancelled", "ClaimLost", "Client", "CommandFailed", "Conflict", "ConnectionLost", "Exhausted", "Held", "LeaseHeld",
    "LeaseLost", "NotFound", "PawlError", "Postpone", "ProviderUnavailable", "Unavailable", "Work", "Worker",
    "WouldDeadlock", "aio", "connect", "socket_paths",
]  # fmt: skip
