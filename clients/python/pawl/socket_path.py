"""Where the daemon listens, by the rule that daemon, clients and `pawl socket-path` share (docs/protocol.md)."""

from __future__ import annotations

import os
import re
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
        raise error_of("invalid_params", f"The instance name {name!r} needs 1 to 64 letters, digits, '.', '_' or '-'.")
    if env.get("PAWL_SOCKET"):
        return [env["PAWL_SOCKET"]]
    uid = os.getuid()
    directories: List[str] = []
    if env.get("XDG_RUNTIME_DIR", "").startswith("/"):
        directories.append(f"{env['XDG_RUNTIME_DIR']}/pawl")
    if uid == 0:
        directories.append("/run/pawl")
    of_user = _status(f"/run/user/{uid}")
    if of_user is not None and of_user.st_uid == uid:
        directories.append(f"/run/user/{uid}/pawl")
    temporary = env.get("TMPDIR") or env.get("TMP") or env.get("TEMP") or "/tmp"
    shared = f"{temporary[:-1] if len(temporary) > 1 and temporary.endswith('/') else temporary}/pawl-{uid}"
    # Anybody can make a directory of this name in the temporary directory and listen in it.
    found = _status(shared)
    if found is None or (found.st_uid == uid and found.st_mode & 0o077 == 0):
        directories.append(shared)
    elif not directories:
        raise error_of("forbidden", f"{shared} belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR.")
    return list(dict.fromkeys(f"{directory}/{name}.sock" for directory in directories))


def _status(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except OSError:
        return None
