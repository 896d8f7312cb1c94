"""A process that appends: `python -m tests.audit.worker appends NAME COUNT`, or `forks`.

It prints a line "uuid index" for each entry, once that entry is acknowledged and not before.
"""

from __future__ import annotations

import os
import sys
import threading

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


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "appends":
        appends(sys.argv[2], int(sys.argv[3]))
    else:
        forks()
