"""Has the pids of holders given to other processes, in a pid namespace of its own, and prints as JSON what became of those.

unshare --pid --fork --mount-proc python3 reused_pid.py ROUNDS NODE PAWLD DIRECTORY

Each round one process takes a lease with onLoss, ends, and another one gets its pid before the lease is lost, or after
the process was signalled and before it would be killed. In every other round the daemon is killed in between. Then the
connection of a process that has ended, and whose pid another has, asks for onLoss.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

rounds, node, pawld, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
path = os.path.join(directory, "pawl.sock")
LAST_PID = "/proc/sys/kernel/ns_last_pid"
GRACE_MS = 150
HOUR_MS = 3_600_000
daemon = None


class Client:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def send(self, method, **params):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def answer(self):
        return json.loads(self.lines.readline())

    def call(self, method, **params):
        self.send(method, **params)
        answer = self.answer()
        assert "result" in answer, answer
        return answer["result"]


def start():
    global daemon
    arguments = [node, pawld, "--socket", path, "--state-dir", os.path.join(directory, "state")]
    log = open(os.path.join(directory, "log"), "a")
    daemon = subprocess.Popen(arguments, stdout=log, stderr=log)
    while True:
        try:
            Client().call("daemon.ping")
            return
        except (OSError, ValueError):
            time.sleep(0.02)


def restart():
    daemon.kill()
    daemon.wait()
    start()


def child(perform):
    """Forks a process that performs something and then sleeps; returns its pid and what it told."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        os.write(writes, json.dumps(perform()).encode() + b"\n")
        time.sleep(600)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as told:
        return pid, json.loads(told.readline())


def with_pid(pid):
    """Another process with this pid."""
    while True:
        with open(LAST_PID, "w") as last:
            last.write(str(pid - 1))
        got = os.fork()
        if got == 0:
            time.sleep(600)
            os._exit(0)
        if got == pid:
            return
        end(got)


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def is_running(pid):
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


kept = []


def hold(name):
    def perform():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        client = Client()
        kept.append(client)
        on_loss = {"signal": "SIGTERM", "graceMs": GRACE_MS}
        return client.call("lease.acquire", name=name, owner="holder", ttlMs=HOUR_MS, onLoss=on_loss)

    return child(perform)[0]


seen = {"reused": 0, "hit": 0, "refused": 0}
start()
for number in range(rounds):
    name = f"name-{number}"
    holder = hold(name)
    next_one = Client()
    if number % 2 == 0:
        # It has ended, and another has its pid, before the lease is lost.
        end(holder)
        with_pid(holder)
        if number % 4 == 2:
            restart()
            next_one = Client()
        next_one.call("lease.break", name=name, reason="a test")
        next_one.send("lease.acquire", name=name, owner="next", waitMs=HOUR_MS)
    else:
        # It is signalled, ends, and another has its pid, before it would be killed.
        next_one.call("lease.break", name=name, reason="a test")
        end(holder)
        with_pid(holder)
        if number % 4 == 3:
            restart()
            next_one = Client()
        next_one.send("lease.acquire", name=name, owner="next", waitMs=HOUR_MS)
        time.sleep(2 * GRACE_MS / 1000)
    assert "result" in next_one.answer()
    seen["reused"] += 1
    if is_running(holder):
        end(holder)
    else:
        seen["hit"] += 1

# Its child asks by the connection of a process that has ended, and whose pid another has.
for _ in range(rounds):
    goes, go = os.pipe()
    reads, writes = os.pipe()
    parent = os.fork()
    if parent == 0:
        client = Client()
        if os.fork() != 0:
            os._exit(0)
        os.read(goes, 1)
        client.send("lease.acquire", name="asked", owner="child", onLoss={})
        os.write(writes, json.dumps(client.answer()).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    with_pid(parent)
    os.write(go, b"x")
    answer = json.loads(os.read(reads, 65536))
    if answer.get("error", {}).get("data", {}).get("kind") == "invalid_params":
        seen["refused"] += 1
    if is_running(parent):
        end(parent)
    else:
        seen["hit"] += 1
    for descriptor in (goes, go, reads, writes):
        os.close(descriptor)
daemon.kill()
print(json.dumps(seen))
