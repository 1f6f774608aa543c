"""Where the daemon listens, by the rule that daemon, clients and `pawl socket-path` share (docs/protocol.md)."""

from __future__ import annotations

import os
import re
import stat
from typing import List, Mapping, Optional

from .errors import error_of

MAX_SOCKET_PATH_BYTES = 107


def socket_paths(instance: Optional[str] = None, env: Mapping[str, str] = os.environ) -> List[str]:
    """The places where the daemon of this user may listen, in the order in which to try them.

    Raises `PawlError` `invalid_params` for an instance that is no name, and `forbidden` when the only place is a
    directory in which somebody else may listen.
    """
    name = instance or env.get("PAWL_INSTANCE") or "default"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise error_of("invalid_params", f"The instance name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-'.")
    if env.get("PAWL_SOCKET"):
        return [env["PAWL_SOCKET"]]
    uid = os.getuid()
    directories: List[str] = []
    if env.get("XDG_RUNTIME_DIR", "").startswith("/"):
        directories.append(f"{env['XDG_RUNTIME_DIR']}/pawl")
    if uid == 0:
        directories.append("/run/pawl")
    if _owner(f"/run/user/{uid}") == uid:
        directories.append(f"/run/user/{uid}/pawl")
    # Anybody can make a directory of this name in the temporary directory and listen in it.
    shared = f"{_temporary_directory(env)}/pawl-{uid}"
    if _is_private(shared, uid):
        directories.append(shared)
    elif not directories:
        raise error_of(
            "forbidden", f"{shared} belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR."
        )
    return list(dict.fromkeys(f"{directory}/{name}.sock" for directory in directories))


def check_length(path: str) -> None:
    """Refuses by name a path that the kernel would cut off."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise error_of(
            "invalid_params",
            f"The socket path {path} has {length} bytes; the kernel takes at most {MAX_SOCKET_PATH_BYTES}.",
        )


def _temporary_directory(env: Mapping[str, str]) -> str:
    path = env.get("TMPDIR") or env.get("TMP") or env.get("TEMP") or "/tmp"
    return path[:-1] if len(path) > 1 and path.endswith("/") else path


def _owner(path: str) -> Optional[int]:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _is_private(path: str, uid: int) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    return found.st_uid == uid and stat.S_IMODE(found.st_mode) & 0o077 == 0
