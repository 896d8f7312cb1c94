"""`manage.py up`: one command that starts everything this machine needs, watches it, and ends it.

    command     the command line, and the order of a whole run
    folder      the data folder: its layout, its lock
    preflight   what is refused before anything starts, each in one line
    parts       what is started: broker, worker, beat, web, signer, trail, and with which environment
    child       one process: start, stop, its log, its restarts
    processes   which process is which, and what an earlier run left behind
    house       all children together: the loop that watches and stops them
    probe       asks /readyz

The supervisor itself never loads Django's settings: they read the data folder's name once, at
import, and making the folder's first files is the children's affair. docs/adr/0004 has the why.
"""

from __future__ import annotations


class Refusal(Exception):
    """`up` can't go on; the message is the one line that a person reads."""
