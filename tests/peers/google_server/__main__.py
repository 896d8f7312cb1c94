"""Run the server: python -m tests.peers.google_server FOLDER

It listens on two free ports of 127.0.0.1, one that asks for a token and one that doesn't, and writes
one line with both to its standard output. FOLDER gets the accounts' key files; a file `clock` in it
moves the time.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.cloud import kms_v1

from tests.peers.google_server.answers import Clock, Refused
from tests.peers.google_server.identity import Identity
from tests.peers.google_server.managing import Managing
from tests.peers.google_server.state import State
from tests.peers.google_server.using import Using

SERVICE = "/google.cloud.kms.v1.KeyManagementService/"
THREADS = 16


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the method that a call names. `identity`: who may call, or None for anybody."""

    def __init__(self, state: State, parts: list[Any], identity: Identity | None) -> None:
        self._state = state
        self._identity = identity
        self._methods: dict[str, Callable[[Any], Any]] = {
            name: getattr(part, name)
            for part in parts
            for name in dir(part)
            if name[0].isupper() and callable(getattr(part, name))
        }

    def service(self, details: Any) -> Any:
        name = details.method.removeprefix(SERVICE)
        if not details.method.startswith(SERVICE) or name not in self._methods:
            return None  # UNIMPLEMENTED
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answered(name, request, context),
            request_deserializer=getattr(kms_v1, f"{name}Request").pb().FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _answered(self, name: str, request: Any, context: Any) -> Any:
        try:
            if self._identity is not None:
                self._identity.check(dict(context.invocation_metadata()), name)
            with self._state.lock:
                return self._methods[name](request)
        except Refused as refused:
            context.abort(refused.code, refused.message)


def main() -> None:
    folder = Path(sys.argv[1])
    clock = Clock(folder / "clock")
    state = State(clock)
    parts: list[Any] = [Managing(state), Using(state)]
    servers, ports = [], []
    for identity in (Identity(clock, folder), None):
        server = grpc.server(ThreadPoolExecutor(THREADS))
        server.add_generic_rpc_handlers((Service(state, parts, identity),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
        servers.append(server)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    print(f"listening on {ports[0]} and {ports[1]} .", flush=True)
    over.wait()
    for server in servers:
        server.stop(0).wait()


if __name__ == "__main__":
    main()
