"""A process that appends: `python -m tests.audit.worker appends NAME COUNT`, `forks`, `killed ROUNDS`.

It prints a line "uuid index" for each entry, once that entry is acknowledged and not before.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

import django

WINDOW = 8


def appends(name: str, count: int) -> None:
    """Submit `count` entries from several threads, and print what is acknowledged."""
    from audit.writer import appender
    from tests.audit.helpers import use

    def work(number: int) -> None:
        for turn in range(number, count, WINDOW):
            event = use(request_id=f"{name}.{turn}")
            index = appender().submit(event, epoch=0, subjects=frozenset({"key:1"})).result()
            os.write(1, f"{event.uuid} {index}\n".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WINDOW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def forks() -> None:
    """Append, then fork, and append in parent and child at once."""
    from audit.writer import appender, close_appender

    appends("before", WINDOW)
    parents = appender()
    child = os.fork()
    if child == 0:
        if appender() is parents:
            os._exit(3)
        appends("child", 50)
        close_appender()
        os._exit(0)
    appends("parent", 50)
    if appender() is not parents:
        sys.exit(4)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def killed(rounds: int, seed: int) -> None:
    """Fork a process that appends, kill -9 it after some acknowledged entries; so many times."""
    chance = random.Random(seed)
    for number in range(rounds):
        enough, reader, writer = chance.randrange(1, 60), *os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.dup2(writer, 1)
            appends(f"round-{number}", 1_000_000)
        os.close(writer)
        with os.fdopen(reader, "rb") as acknowledged:
            lines = [acknowledged.readline() for _ in range(enough)]
            # Anywhere between one acknowledgement and the next few commits.
            time.sleep(chance.random() * 0.01)
            os.kill(child, signal.SIGKILL)
            lines += acknowledged.readlines()
        os.waitpid(child, 0)
        # A line that was being written when the kill came was acknowledged, but to nobody.
        sys.stdout.write("".join(line.decode() for line in lines if line.endswith(b"\n")))
        sys.stdout.flush()


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "appends":
        appends(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "killed":
        killed(int(sys.argv[2]), int(sys.argv[3]))
    else:
        forks()
