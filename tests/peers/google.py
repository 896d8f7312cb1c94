"""Google Cloud KMS in tests: a server of OURS, or a real key ring.

Google's own fake can't be had from the module registries used here; what stands in for it is in
tests/peers/google_server, which says what is real about it. PEER_GCP_KEY_RING (with application
default credentials) names a real key ring instead, which the tests fill with keys.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keys.backends.base import Backend
from tests.parts import missing
from tests.peers.peer import Peer
from tests.processes import Process

DAY = 86400.0
LOCATION = "projects/tests/locations/europe-west3"
SERVICE = "/google.cloud.kms.v1.KeyManagementService/"


@dataclass(frozen=True, slots=True)
class GoogleServer:
    """The running server: `open_target` asks for no token, `guarded_target` does."""

    open_target: str
    guarded_target: str
    folder: Path

    def credential(self, account: str = "keeper") -> bytes:
        """The key file of a service account: keeper may do anything, looker only look."""
        return (self.folder / f"{account}.json").read_bytes()

    def call(self, request: Any) -> None:
        """Make one call (a request of google.cloud.kms_v1) as anybody could, beside the backend."""
        import grpc

        kind = type(request)
        method = SERVICE + kind.__name__.removesuffix("Request")
        with grpc.insecure_channel(self.open_target) as channel:
            channel.unary_unary(method)(kind.serialize(request), timeout=30)

    def key_ring(self) -> str:
        """Make an empty key ring and return its name."""
        from google.cloud import kms_v1

        # Without a run of hexadecimal digits that could be taken for an identifier of a key.
        name = f"ring-{secrets.token_hex(3)}-{secrets.token_hex(3)}"
        self.call(kms_v1.CreateKeyRingRequest(parent=LOCATION, key_ring_id=name))
        return f"{LOCATION}/keyRings/{name}"

    def settings(self, *, guarded: bool = False, **more: str) -> Mapping[str, str]:
        target = self.guarded_target if guarded else self.open_target
        return {"key_ring": self.key_ring(), "endpoint": target, **more}

    @contextlib.contextmanager
    def later(self, *, days: float = 0, seconds: float = 0) -> Iterator[None]:
        """Have the server believe that it is later. What happened by then stays so."""
        clock = self.folder / "clock"
        clock.write_text(str(days * DAY + seconds))
        try:
            yield
        finally:
            clock.unlink()

    def peer(self) -> Peer:
        return Peer(
            "gcp",
            "a server of ours over Google's published protobufs (Google's own fake can't be had here)",
            lambda: self.settings(guarded=True),
            credential=self.credential(),
            # Its window ends when its clock is moved, which only its own tests do.
            gaps=frozenset({"deletes"}),
        )


@pytest.fixture(scope="session")
def google_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    """A server of this session's own."""
    try:
        import google.cloud.kms_v1  # noqa: F401
        import grpc  # noqa: F401
    except ImportError:
        missing("the library of Google Cloud KMS", "pip install 'kms-console[gcp]'")
    folder = tmp_path_factory.mktemp("google")
    command = [sys.executable, "-m", "tests.peers.google_server", str(folder)]
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    process = Process(command, environment, folder / "output.log")
    try:
        process.wait_for(" .\n")
        ports = re.findall(r"listening on (\d+) and (\d+)", process.text)[0]
        guarded, opened = (f"127.0.0.1:{port}" for port in ports)
        yield GoogleServer(opened, guarded, folder)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def google_kms(request: pytest.FixtureRequest) -> Peer:
    """Google Cloud KMS: PEER_GCP_KEY_RING where it is set, else the server of ours."""
    ring = os.environ.get("PEER_GCP_KEY_RING")
    if not ring:
        server: GoogleServer = request.getfixturevalue("google_server")
        return server.peer()
    # One key ring for all tests: Google deletes none, and keys are named by what tests make up. They
    # cost something until they are destroyed, so that is soon.
    settings = {"key_ring": ring, "destroy_days": "1"}
    return Peer("gcp", "Google Cloud KMS", lambda: settings, gaps=frozenset({"deletes"}))


@pytest.fixture
def google_store(google_server: GoogleServer) -> Iterator[Backend]:
    """A backend of an empty key ring in the server of ours, without a token."""
    backend = google_server.peer().backend(google_server.settings())
    yield backend
    backend.close()
