"""One of several web processes at one address: `python -m kms_console.supervisor.shared --host --port ...`.

Each opens a listening socket of its own at the same address (SO_REUSEPORT, which the kernel grants
to one user's processes only), and the kernel deals new connections out. So one that dies or ends
takes nothing from the others. What follows host and port is uvicorn's own.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence

BACKLOG = 2048


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens beside others at an address. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = found[0]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(target)
    opened.listen(BACKLOG)
    return opened


def main(arguments: Sequence[str]) -> None:
    """Listen, and be uvicorn."""
    from uvicorn.main import main as uvicorn

    parser = argparse.ArgumentParser(prog="kms_console.supervisor.shared", add_help=False)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    where, rest = parser.parse_known_args(list(arguments))
    try:
        ours = listener(where.host, where.port)
    except OSError as error:
        sys.exit(f"Can't listen on {where.host} port {where.port}: {error.strerror}.")
    uvicorn([*rest, "--fd", str(ours.fileno())])


if __name__ == "__main__":
    main(sys.argv[1:])
