"""A worker in Python, with nothing but its standard library.

python3 worker.py SOCKET QUEUE COMMAND...

Claims one batch after the other and runs COMMAND with the claim as JSON on its standard input. Renews the claim
while COMMAND runs, completes it on exit code 0, gives it back otherwise, and stops COMMAND when the claim is lost.
"""

import json, os, socket, subprocess, sys

path, queue, *command = sys.argv[1:]
lease_ms = int(os.environ.get("LEASE_MS", 30_000))
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(path)
lines = daemon.makefile("rw", encoding="utf-8", newline="\n")


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.kind = error["data"]["kind"]


def call(method, **params):
    lines.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
    lines.flush()
    reply = json.loads(lines.readline() or sys.exit("The daemon is gone."))
    if "error" in reply:
        raise Refused(reply["error"])
    return reply["result"]


while True:
    claim = call("queue.claim", queue=queue, owner="worker.py", leaseMs=lease_ms, waitMs=60_000)["claim"]
    if claim is None:
        continue
    proof = {"claimId": claim["claimId"], "leaseToken": claim["leaseToken"]}
    job = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    text = json.dumps(claim) + "\n"
    try:
        while job.returncode is None:
            try:
                job.communicate(text, timeout=lease_ms / 3000)
            except subprocess.TimeoutExpired:
                text = None  # The job has it; it only takes its time.
                call("queue.renew", leaseMs=lease_ms, **proof)
        if job.returncode == 0:
            call("queue.complete", **proof)
        else:
            call("queue.abandon", error=f"exit code {job.returncode}", **proof)
        print("completed" if job.returncode == 0 else "abandoned", flush=True)
    except Refused as refused:
        if refused.kind != "claim_lost":
            raise
        job.kill()  # Another may be doing the same work by now.
        job.wait()
        print("lost", flush=True)
