"""Cancels a wait around the moment at which it is granted, many times, and prints how often each came first as JSON.

python3 cancel.py SOCKET ROUNDS
"""

import json
import socket
import sys
import time

path, rounds = sys.argv[1], int(sys.argv[2])
QUEUE = "cancel-python"


class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def send(self, id, method, params):
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def replies(self, count):
        found = {}
        for _ in range(count):
            reply = json.loads(self.lines.readline())
            assert reply["id"] not in found, reply
            found[reply["id"]] = reply
        return found

    def call(self, method, params):
        self.send("call", method, params)
        return self.replies(1)["call"]["result"]


waiting, granting = Connection(), Connection()
granted = cancelled = 0
# Seconds by which the cancel is sent later than the grant.
pause, step, before = 0.0, 20e-6, None
for round in range(rounds):
    wait = {"queue": QUEUE, "owner": "python", "waitMs": 60000}
    waiting.send("wait", "queue.claim", wait)
    both = [
        lambda: granting.send("enqueue", "queue.enqueue", {"queue": QUEUE, "payloads": [round]}),
        lambda: waiting.send("cancel", "rpc.cancel", {"id": "wait"}),
    ]
    first, second = both if pause >= 0 else reversed(both)
    first()
    time.sleep(abs(pause))
    second()
    replies = waiting.replies(2)
    batch = granting.replies(1)["enqueue"]["result"]["batch"]
    ended = replies["cancel"]["result"]["cancelled"]
    # Each round moves towards the other outcome, further while that does not come.
    step = step * 2 if ended == before else 20e-6
    before = ended
    pause += step if ended else -step
    if ended:
        cancelled += 1
        assert replies["wait"]["error"]["data"]["kind"] == "cancelled", replies
        claim = granting.call("queue.claim", {"queue": QUEUE, "owner": "python"})["claim"]
    else:
        granted += 1
        claim = replies["wait"]["result"]["claim"]
    assert [each["batchId"] for each in claim["batches"]] == [batch["batchId"]], claim
    assert claim["batches"][0]["attempt"] == 0, claim
    proof = {"claimId": claim["claimId"], "leaseToken": claim["leaseToken"]}
    assert granting.call("queue.complete", proof) == {"completed": 1}
stats = granting.call("queue.stats", {"queue": QUEUE})["queues"]
assert [(each["ready"], each["claimed"], each["completed"]) for each in stats] == [(0, 0, rounds)], stats
json.dump([granted, cancelled], sys.stdout)
