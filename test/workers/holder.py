"""Holds a lease or a path with onLoss, and behaves badly when it is to end. Prints one line of JSON when it holds it.

python3 holder.py SOCKET NAME KIND PARAMS

NAME is of a lease, unless PARAMS has `names`, or an absolute directory of which everything is reserved. KIND: `obeys`,
`ignores` (SIGTERM),
`stopped` (by SIGSTOP, once it holds it), `forks` (and ends, while the child keeps the connection until descriptor 3
ends),
`unreaped` (nobody waits for it), `leaves` (closes the connection and goes on, ignoring SIGTERM). PARAMS is JSON that is
added to the request. A process that holds it prints its pid, and that of a child that goes on.
"""

import json
import os
import signal
import socket
import sys
import time

path, name, kind, params = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])


def tell(**what):
    os.write(1, json.dumps(what).encode() + b"\n")


if kind == "unreaped" and os.fork() != 0:
    # The parent of the holder never waits for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    os._exit(0)

if kind in ("ignores", "leaves"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
lines = connection.makefile("rb")
what = {"root": name, "patterns": ["**"]} if name.startswith("/") else {} if "names" in params else {"name": name}
method = "path.reserve" if name.startswith("/") else "lease.acquire"
request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**what, "owner": kind, **params}}
connection.sendall(json.dumps(request).encode() + b"\n")
answer = json.loads(lines.readline())
if "error" in answer:
    tell(refused=answer["error"]["data"]["kind"], message=answer["error"]["message"])
    sys.exit(1)
result = answer["result"]
grant = result.get("reservation") or result.get("lease") or result["leases"][0]
if kind == "forks":
    child = os.fork()
    if child != 0:
        tell(pid=os.getpid(), child=child, grant=grant)
        os._exit(0)
    os.close(1)
    os.read(3, 1)
    os._exit(0)
tell(pid=os.getpid(), grant=grant)
if kind == "leaves":
    lines.close()
    connection.close()
if kind == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
while True:
    time.sleep(60)
