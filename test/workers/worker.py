"""A worker in Python, with nothing but its standard library: python3 worker.py SOCKET QUEUE COMMAND...

Claims one batch after the other and runs COMMAND with the claim as JSON on its standard input. Renews the claim
while COMMAND runs, completes it on exit code 0, gives it back otherwise. Kills COMMAND with all that it started when
the claim is lost. Claims outlive a restart of the daemon, so whoever does not answer is asked again.
"""

import contextlib, json, math, os, shutil, signal, socket, subprocess, sys, time

if len(sys.argv) < 4 or not shutil.which(sys.argv[3]):
    sys.exit("usage: worker.py SOCKET QUEUE COMMAND..., where COMMAND is a program that can be run")
path, queue, *command = sys.argv[1:]
lease_ms = int(os.environ.get("LEASE_MS", 30_000))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: sys.exit(128 + number))  # By way of what kills the command.


def call(method, until=math.inf, told=False, **params):
    """Gives the result, or None when the claim is lost: the daemon says so, or does not answer until it has expired."""
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n"
    while (left := until - time.monotonic()) > 0:
        reply = {"error": {"message": f"No daemon answers on {path}.", "data": {"kind": "", "retryable": True}}}
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as daemon:
            daemon.settimeout(min(left, 90))
            daemon.connect(path)
            daemon.sendall(request.encode())
            reply = json.loads(daemon.makefile(encoding="utf-8").readline())
        if "result" in reply:
            return reply["result"]
        message, data = reply["error"]["message"], reply["error"]["data"]
        if data["kind"] == "claim_lost":
            return None
        if not data["retryable"]:
            sys.exit(message)
        told = told or not print(message, "Asking again.", file=sys.stderr)
        time.sleep(0.2)


while True:
    while not (held := call("queue.claim", queue=queue, owner="worker.py", leaseMs=lease_ms, waitMs=60_000)["claim"]):
        pass
    until = time.monotonic() + lease_ms / 1000
    proof, text = {name: held[name] for name in ("claimId", "leaseToken")}, json.dumps(held) + "\n"
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as job:
        try:
            while held and job.returncode is None:
                try:
                    job.communicate(text, timeout=lease_ms / 3000)
                except subprocess.TimeoutExpired:
                    text, asked = None, time.monotonic()  # The job has its input; it only takes its time.
                    held = call("queue.renew", until, leaseMs=lease_ms, **proof)
                    until = asked + lease_ms / 1000
        finally:
            if job.returncode is None:
                os.killpg(job.pid, signal.SIGKILL)  # Another may be doing the same work by now.
    outcome = "abandoned" if job.returncode else "completed"
    ended = {"error": f"exit code {job.returncode}"} if job.returncode else {}
    held = held and call("queue.abandon" if ended else "queue.complete", **ended, **proof)
    print(outcome if held else "lost", flush=True)
