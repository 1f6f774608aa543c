"""The program that the tests of the clients run: scenarios.py blocking|asyncio SCENARIO SOCKET ...

Speaks by lines of JSON on its standard output, and takes some on its standard input. The Go client has the same.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import pawl

AT_A_TIME = 16


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def said(error):
    """An error as the tests look at it."""
    what = {"class": type(error).__name__, "kind": getattr(error, "kind", None)}
    if isinstance(error, pawl.ConnectionLost):
        what["mayHaveTakenEffect"] = error.may_have_taken_effect
    return what


class Unsayable(Exception):
    def __str__(self):
        raise RuntimeError("it has no text")


class Odd:
    """No JSON."""


def failed(task):
    """Fails as a task wants it, or returns the result that it wants."""
    if "fail" in task:
        raise ValueError(task["fail"]) if task["fail"] else Unsayable()
    return Odd() if task.get("odd") else None


# Blocking.


def numbers(client, type_, count):
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        say(numbers=list(threads.map(lambda _: client.next(type_)["seq"], range(int(count)))))


def calls(client):
    """Makes each call that a line asks for, all at a time."""

    def call(line):
        asked = json.loads(line)
        try:
            say(id=asked["id"], result=client.call(asked["method"], asked["params"]))
        except (pawl.PawlError, pawl.ConnectionLost) as error:
            say(id=asked["id"], error=said(error))

    threads = []
    for line in sys.stdin:
        threads.append(threading.Thread(target=call, args=(line,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def work(client, queue, lease_ms):
    def handler(work):
        task = work.payloads[0]
        say(begun=task["name"])
        result = failed(task)
        while "until" in task and not os.path.exists(task["until"]):
            if work.stopped.wait(0.01):
                say(stopped=task["name"], kind=work.reason.kind)
                work.check()
        return result

    worker = client.work(
        queue,
        handler,
        lease=int(lease_ms) / 1000,
        on_complete=lambda work: say(completed=work.payloads[0]["name"]),
        on_error=lambda error: say(error=said(error)),
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    say(ready=True)
    worker.join()
    say(ended=True)


def lock(client, name, ttl_ms):
    hold(lambda on_loss: client.lock(name, ttl=int(ttl_ms) / 1000, wait=60, on_loss=on_loss))


def reserve(client, root, ttl_ms):
    hold(lambda on_loss: client.reserve(root, "src/**", ttl=int(ttl_ms) / 1000, wait=60, on_loss=on_loss))


def hold(lock):
    """Holds until a line comes, or until it is told of a loss."""
    ended = threading.Event()
    lock = lock(lambda reason: (say(told=reason.kind), ended.set()))
    threading.Thread(target=lambda: sys.stdin.readline() and ended.set(), daemon=True).start()
    try:
        with lock as held:
            say(held=held.fencing_token)
            ended.wait()
        say(released=True)
    except pawl.LeaseLost as error:
        say(lost=said(error))


def serve(client, deployment):
    def hang(envelope):
        say(begun=envelope["commandId"])
        time.sleep(0.2)
        return "late"

    def fail(envelope):
        raise pawl.CommandFailed("E_TOLD", "as told", {"by": envelope["params"]})

    def long(envelope):
        return "x" * envelope["params"]

    handlers = {"echo": lambda envelope: envelope["params"], "fail": fail, "hang": hang, "long": long}
    with client.serve(deployment, handlers):
        say(ready=True)
        sys.stdin.readline()
    say(ended=True)


def events(client, topic):
    following = client.events(topic)
    say(ready=True)
    for event in following:
        say(event=event["kind"], id=event.get("id"))


# The same with asyncio.


class Asynchronous:
    @staticmethod
    async def numbers(client, type_, count):
        left, taken = iter(range(int(count))), []

        async def take():
            for _ in left:
                taken.append((await client.next(type_))["seq"])

        await asyncio.gather(*(take() for _ in range(AT_A_TIME)))
        say(numbers=taken)

    @staticmethod
    async def calls(client):
        async def call(line):
            asked = json.loads(line)
            try:
                say(id=asked["id"], result=await client.call(asked["method"], asked["params"]))
            except (pawl.PawlError, pawl.ConnectionLost) as error:
                say(id=asked["id"], error=said(error))

        tasks = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.append(asyncio.create_task(call(line)))
        await asyncio.gather(*tasks)

    @staticmethod
    async def work(client, queue, lease_ms):
        async def handler(work):
            task = work.payloads[0]
            say(begun=task["name"])
            result = failed(task)
            try:
                while "until" in task and not os.path.exists(task["until"]):
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                say(stopped=task["name"], kind=work.reason.kind)
                raise
            return result

        worker = client.work(
            queue,
            handler,
            lease=int(lease_ms) / 1000,
            on_complete=lambda work: say(completed=work.payloads[0]["name"]),
            on_error=lambda error: say(error=said(error)),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        say(ready=True)
        await worker
        say(ended=True)

    @classmethod
    async def lock(cls, client, name, ttl_ms):
        await cls.hold(client.lock(name, ttl=int(ttl_ms) / 1000, wait=60))

    @classmethod
    async def reserve(cls, client, root, ttl_ms):
        await cls.hold(client.reserve(root, "src/**", ttl=int(ttl_ms) / 1000, wait=60))

    @staticmethod
    async def hold(lock):
        reading = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(0, lambda: reading.done() or reading.set_result(None))
        try:
            async with lock as held:
                say(held=held.fencing_token)
                try:
                    await reading
                except asyncio.CancelledError:
                    say(told=held.reason.kind)
                    raise
            say(released=True)
        except pawl.LeaseLost as error:
            say(lost=said(error))

    @staticmethod
    async def serve(client, deployment):
        async def echo(envelope):
            return envelope["params"]

        async def fail(envelope):
            raise pawl.CommandFailed("E_TOLD", "as told", {"by": envelope["params"]})

        async def hang(envelope):
            say(begun=envelope["commandId"])
            await asyncio.sleep(0.2)
            return "late"

        async def long(envelope):
            return "x" * envelope["params"]

        receiver = client.serve(deployment, {"echo": echo, "fail": fail, "hang": hang, "long": long})
        say(ready=True)
        await asyncio.to_thread(sys.stdin.readline)
        await receiver.stop()
        say(ended=True)

    @staticmethod
    async def events(client, topic):
        # The first answer says where "now" is.
        cursor = (await client.call("events.watch", {"topics": [topic]}))["cursor"]
        say(ready=True)
        async for event in client.events(topic, since=cursor):
            say(event=event["kind"], id=event.get("id"))


def run_blocking(scenario, socket, *args):
    with pawl.connect(socket, reconnect=60) as client:
        globals()[scenario](client, *args)


async def run_asyncio(scenario, socket, *args):
    async with pawl.aio.connect(socket, reconnect=60) as client:
        await getattr(Asynchronous, scenario)(client, *args)


if sys.argv[2] == "paths":
    try:
        say(paths=pawl.socket_paths())
    except pawl.PawlError as error:
        say(error=said(error))
elif sys.argv[1] == "blocking":
    run_blocking(*sys.argv[2:])
else:
    asyncio.run(run_asyncio(*sys.argv[2:]))
