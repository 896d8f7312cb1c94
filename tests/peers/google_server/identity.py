"""Service accounts of this server, their tokens, and what each may do.

Tokens are got as Google's are: a JWT signed with the account's key (RFC 7523) is posted to the token
endpoint, whose clock decides whether its dates are of now.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.peers.google_server.answers import Clock, Refused

TOKEN_SECONDS, JWT_SECONDS, SLACK_SECONDS = 3600.0, 3600, 300.0
AUDIENCE = "https://oauth2.googleapis.com/token"  # whatever the key file names as its endpoint
ACCOUNTS = ("keeper", "looker")
# A looker may look, and nothing else.
LOOKING = ("Get", "List")


class Identity:
    """Two accounts whose key files are written to a folder, and the tokens given to them."""

    def __init__(self, clock: Clock, folder: Path) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.identity = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._key = rsa.generate_private_key(65537, 2048)
        for name in ACCOUNTS:
            (folder / f"{name}.json").write_text(json.dumps(self._key_file(name)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _key_file(self, name: str) -> dict[str, str]:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": f"{name}@tests.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": self.url,
        }

    def check(self, metadata: Mapping[str, str], method: str) -> None:
        """Refuse a call without a valid token, or one that the account may not make."""
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        account, ends = self._tokens.get(token, ("", 0.0))
        if scheme != "Bearer" or not account or self._clock.now() >= ends:
            raise Refused(
                "UNAUTHENTICATED", "Request had invalid authentication credentials: no valid token."
            )
        if account == "looker" and not method.startswith(LOOKING):
            raise Refused("PERMISSION_DENIED", f"Permission for {method} denied to {account}.")

    def token_for(self, assertion: str) -> dict[str, Any]:
        """Return a token for a JWT. Raises ValueError, with what is wrong with it."""
        signed, _, signature = assertion.rpartition(".")
        try:
            self._key.public_key().verify(
                _decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except InvalidSignature:
            raise ValueError("Invalid JWT Signature.") from None
        now, begins, ends = self._clock.now(), claims["iat"], claims["exp"]
        if not (begins - SLACK_SECONDS <= now < ends and ends - begins <= JWT_SECONDS):
            raise ValueError(
                "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim."
            )
        if claims["aud"] != AUDIENCE:
            raise ValueError("Invalid JWT: wrong audience.")
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens[token] = (claims["iss"].partition("@")[0], now + TOKEN_SECONDS)
        return {"access_token": token, "expires_in": int(TOKEN_SECONDS), "token_type": "Bearer"}


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        identity: Identity = self.server.identity  # type: ignore[attr-defined]
        try:
            status, answer = 200, identity.token_for(form["assertion"][0])
        except (ValueError, KeyError) as error:
            status, answer = 400, {"error": "invalid_grant", "error_description": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""
