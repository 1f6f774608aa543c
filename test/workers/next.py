"""Takes COUNT numbers over the raw socket, each after the answer to the one before, and prints them as JSON.

python3 next.py SOCKET TYPE COUNT
"""

import json
import socket
import sys

path, type_, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
numbers = []
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    with connection.makefile("rwb") as lines:
        for call in range(count):
            request = {"jsonrpc": "2.0", "id": call, "method": "sequence.next", "params": {"type": type_}}
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            reply = json.loads(lines.readline())
            assert reply["id"] == call, reply
            numbers.append(reply["result"]["seq"])
json.dump(numbers, sys.stdout)
