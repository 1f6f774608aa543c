"""Cancels waits of each waiting method around the moment at which they are granted, many times, and prints as JSON how
often each came first, by method.

python3 cancel.py SOCKET ROUNDS
"""

import json
import socket
import sys
import time

path, rounds = sys.argv[1], int(sys.argv[2])
NAME = "cancel-python"


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
        while len(found) < count:
            reply = json.loads(self.lines.readline())
            assert reply.get("id") not in found, reply
            if "method" not in reply:
                found[reply["id"]] = reply
        return found

    def call(self, method, params):
        self.send("call", method, params)
        return self.replies(1)["call"]["result"]


waiting, granting = Connection(), Connection()


# Each method: a wait, with what makes it come true; and a look that the wait has, or has not, what that gave. The look
# ends it, so that the next round finds nothing.


def claim(round):
    def look(granted, made):
        got = granted or granting.call("queue.claim", {"queue": NAME, "owner": "python"})
        got = got["claim"]
        assert [each["batchId"] for each in got["batches"]] == [made["batch"]["batchId"]], got
        assert got["batches"][0]["attempt"] == 0, got
        proof = {"claimId": got["claimId"], "leaseToken": got["leaseToken"]}
        assert granting.call("queue.complete", proof)["completed"] == 1

    return {"queue": NAME, "owner": "python"}, ("queue.enqueue", {"queue": NAME, "payloads": [round]}), look


def lease(round):
    held = granting.call("lease.acquire", {"name": NAME, "owner": "holder"})["lease"]

    def look(granted, _):
        if granted:
            assert granting.call("lease.release", {"leaseId": granted["lease"]["leaseId"]})["released"]
        assert granting.call("lease.get", {"name": NAME})["lease"] is None

    return {"name": NAME, "owner": "python"}, ("lease.release", {"leaseId": held["leaseId"]}), look


def delivery(round):
    def look(granted, made):
        command = {"commandId": made["commandId"]}
        state = granting.call("command.get", command)["state"]
        assert state == ("DISPATCHED" if granted else "PENDING"), state
        assert not granted or granted["leases"][0]["commandId"] == made["commandId"], granted
        granting.call("command.cancel", command)

    return {"deployment": NAME, "owner": "python"}, ("command.create", {"deployment": NAME, "command": "go"}), look


def answer(round):
    command = {"commandId": granting.call("command.create", {"deployment": NAME, "command": "go"})["commandId"]}

    def look(granted, _):
        assert not granted or granted["state"] == "FAILED", granted
        assert granting.call("command.get", command)["state"] == "FAILED"

    return command, ("command.cancel", command), look


def end(round):
    batch = granting.call("queue.enqueue", {"queue": NAME, "payloads": [round]})["batch"]
    batch = {"batchId": batch["batchId"]}

    def look(granted, _):
        assert not granted or granted["batch"]["state"] == "cancelled", granted

    return batch, ("queue.cancel", batch), look


def change(round):
    since = granting.call("pipeline.watch", {})["revision"]

    def look(granted, _):
        assert not granted or granted["revision"] > since, granted

    item = {"storyId": "FR-001", "stage": "1_backlog", "name": str(round)}
    return {"since": since}, ("pipeline.write", item), look


def reservation(round):
    files = {"root": "/" + NAME, "files": ["a"]}
    held = granting.call("path.reserve", {**files, "owner": "holder"})["reservation"]

    def look(granted, _):
        if granted:
            mine = {"reservationId": granted["reservation"]["reservationId"]}
            assert granting.call("path.release", mine)["released"]
        assert granting.call("path.check", {"root": "/" + NAME, "path": "a"})["allowed"]

    return {**files, "owner": "python"}, ("path.release", {"reservationId": held["reservationId"]}), look


def room(round):
    queue = NAME + "-full"
    granting.call("queue.configure", {"queue": queue, "maxWaiting": 1})
    first = granting.call("queue.enqueue", {"queue": queue, "payloads": ["first"]})["batch"]

    def look(granted, _):
        waiting = granting.call("queue.list", {"queue": queue, "state": "ready"})["batches"]
        assert [batch["payloads"] for batch in waiting] == ([[round]] if granted else []), waiting
        for batch in waiting:
            granting.call("queue.cancel", {"batchId": batch["batchId"]})

    return {"queue": queue, "payloads": [round]}, ("queue.cancel", {"batchId": first["batchId"]}), look


def happening(round):
    topics = ["queue:" + NAME]
    cursor = granting.call("events.watch", {"topics": topics})["cursor"]

    def look(granted, made):
        batch = made["batch"]["batchId"]
        assert not granted or [event["id"] for event in granted["events"]] == [batch], granted
        granting.call("queue.cancel", {"batchId": batch})

    watch = {"topics": topics, "since": cursor}
    return watch, ("queue.enqueue", {"queue": NAME, "payloads": [round]}), look


def work(round):
    story = {"storyId": "FR-002"}
    granting.call("pipeline.write", {**story, "stage": "1_backlog", "blocked": True})

    def look(granted, _):
        if granted:
            assert granted["item"]["storyId"] == "FR-002", granted
            assert granting.call("lease.release", {"leaseId": granted["lease"]["leaseId"]})["released"]
        item = granting.call("pipeline.read", story)["item"]
        assert "claim" not in item and item["agent"] is None, item

    return {**story, "agent": "python"}, ("pipeline.write", {**story, "blocked": False}), look


WAITS = {
    "queue.claim": claim,
    "lease.acquire": lease,
    "command.lease": delivery,
    "command.wait": answer,
    "queue.wait": end,
    "pipeline.watch": change,
    "pipeline.claim": work,
    "path.reserve": reservation,
    "queue.enqueue": room,
    "events.watch": happening,
}

counts = {}
for method, begin in WAITS.items():
    granted = cancelled = 0
    # Seconds by which the cancel is sent later than what grants.
    pause, step, before = 0.0, 20e-6, None
    for round in range(rounds):
        params, (granting_method, granting_params), look = begin(round)
        waiting.send("wait", method, {**params, "waitMs": 60000})
        # What is sent after it is answered before it: it waits.
        waiting.call("daemon.ping", {})
        both = [
            lambda: granting.send("grant", granting_method, granting_params),
            lambda: waiting.send("cancel", "rpc.cancel", {"id": "wait"}),
        ]
        first, second = both if pause >= 0 else reversed(both)
        first()
        time.sleep(abs(pause))
        second()
        replies = waiting.replies(2)
        made = granting.replies(1)["grant"]["result"]
        ended = replies["cancel"]["result"]["cancelled"]
        # Each round moves towards the other outcome, further while that does not come.
        step = step * 2 if ended == before else 20e-6
        before = ended
        pause += step if ended else -step
        if ended:
            cancelled += 1
            assert replies["wait"]["error"]["data"]["kind"] == "cancelled", replies
            look(None, made)
        else:
            granted += 1
            look(replies["wait"]["result"], made)
    counts[method] = [granted, cancelled]
json.dump(counts, sys.stdout)
