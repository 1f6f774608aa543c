"""Calls, is notified and is asked through python3-pylsp-jsonrpc, as it comes, and prints what came as JSON.

python3 pylsp.py SOCKET
"""

import json
import queue
import socket
import sys
import threading

from pylsp_jsonrpc.endpoint import Endpoint
from pylsp_jsonrpc.streams import JsonRpcStreamReader, JsonRpcStreamWriter

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
writer = JsonRpcStreamWriter(connection.makefile("wb"))
reader = JsonRpcStreamReader(connection.makefile("rb"))
came = queue.Queue()


def execute(params):
    came.put(["command.execute", params["command"]])
    return params["params"]


def lost(params):
    came.put(["lease.lost", params["name"]])


endpoint = Endpoint({"command.execute": execute, "lease.lost": lost}, writer.write)
threading.Thread(target=reader.listen, args=(endpoint.consume,), daemon=True).start()


def call(method, params=None):
    return endpoint.request(method, params).result(timeout=60)


assert call("daemon.ping")["now"] > 0
call("lease.acquire", {"name": "pylsp", "owner": "pylsp"})
call("lease.break", {"name": "pylsp", "reason": "test"})
notified = came.get(timeout=60)
call("command.serve", {"deployment": "pylsp", "owner": "pylsp"})
sent = call("command.create", {"deployment": "pylsp", "command": "go", "params": ["é"]})
asked = came.get(timeout=60)
state = call("command.wait", {"commandId": sent["commandId"], "waitMs": 60000})["state"]
json.dump([notified, asked, state], sys.stdout)
