"""HTTPS: addresses to methods of a vault, and the directory that gives tokens and opens vaults."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from tests.peers.azure_server.crypto import Refused, bad
from tests.peers.azure_server.vault import OPERATIONS, Key, Rules, Vault

VERSIONS = {"7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01"}
TOKEN_SECONDS = 3600
PATIENCE = 60


class Directory:
    """The tenant: one application, its secrets, the tokens it was given, and the vaults.

    A client secret with `-expired` behind it is one whose time is over; with `-early` it is given
    tokens that are not valid yet, as a machine with a wrong clock sees them.
    """

    def __init__(self, tenant: str, client: str, secret: str, tls: ssl.SSLContext) -> None:
        self.tenant, self.client, self.secret, self.tls = tenant, client, secret, tls
        self.tokens: dict[str, tuple[float, float]] = {}
        self.vaults: dict[int, Vault] = {}
        self.server = start(DirectoryHandler, self, None)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}"

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        """Client credentials (RFC 6749, 4.4), with Entra ID's errors."""
        given = form.get("client_secret", "")
        if form.get("grant_type") != "client_credentials":
            return 400, failed("unsupported_grant_type", "AADSTS70003: unsupported grant type.")
        if form.get("client_id") != self.client:
            return 400, failed(
                "unauthorized_client", "AADSTS700016: Application was not found in the directory."
            )
        if given == f"{self.secret}-expired":
            return 401, failed(
                "invalid_client", "AADSTS7000222: The client secret keys are expired."
            )
        if given not in (self.secret, f"{self.secret}-early"):
            return 401, failed("invalid_client", "AADSTS7000215: Invalid client secret provided.")
        begins = time.time() + (600 if given.endswith("-early") else 0)
        token = secrets.token_urlsafe(32)
        self.tokens[token] = (begins, begins + TOKEN_SECONDS)
        return 200, {
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS - 1,
            "ext_expires_in": TOKEN_SECONDS - 1,
            "access_token": token,
        }

    def open(self, rules: dict[str, Any]) -> tuple[int, Any]:
        """Open a vault on a port of its own. The rest of an address names the vault by its port."""
        vault = Vault(Rules(**{**rules, "denied": tuple(rules.get("denied", ()))}))
        server = start(VaultHandler, self, vault)
        port = server.server_address[1]
        self.vaults[port] = vault
        return 200, {"url": f"https://127.0.0.1:{port}", "port": port}

    def change(self, port: int, body: dict[str, Any]) -> tuple[int, Any]:
        """Change a vault's rules, forget the tokens, or put a certificate's key into it."""
        vault = self.vaults[port]
        with vault.lock:
            for name, value in body.get("rules", {}).items():
                setattr(vault.rules, name, tuple(value) if isinstance(value, list) else value)
            if body.get("revoke"):
                self.tokens.clear()
            for name in body.get("certificates", []):
                vault.keys[name] = Key(name, managed=False)
                vault.create("", name, {"kty": "RSA"})
                vault.keys[name].managed = True
        return 200, {}


def failed(error: str, description: str) -> dict[str, Any]:
    numbers = [int(description.removeprefix("AADSTS").partition(":")[0])]
    return {"error": error, "error_description": description, "error_codes": numbers}


class Handler(BaseHTTPRequestHandler):
    """What both servers share. Bodies and answers are JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = PATIENCE
    server: Server

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if data:
            self.wfile.write(data)

    def handled(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.route(data)
        except Refused as error:
            told: dict[str, Any] = {"code": error.code, "message": error.message}
            if error.inner:
                told["innererror"] = {"code": error.inner}
            self.answer(error.status, {"error": told})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handled  # noqa: N815

    def route(self, data: bytes) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[Handler], directory: Directory, vault: Vault | None) -> None:
        self.directory, self.vault = directory, vault
        super().__init__(("127.0.0.1", 0), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread, so that nobody waits for another's handshake."""
        request.settimeout(PATIENCE)
        try:
            request = self.directory.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        finally:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


def start(handler: type[Handler], directory: Directory, vault: Vault | None) -> Server:
    server = Server(handler, directory, vault)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


class DirectoryHandler(Handler):
    def route(self, data: bytes) -> None:
        directory = self.server.directory
        parts = urlsplit(self.path).path.strip("/").split("/")
        if self.command == "GET" and parts[-1] == "openid-configuration":
            root = f"https://{self.headers['Host']}/{directory.tenant}"
            self.answer(
                200,
                {
                    "issuer": f"{root}/v2.0",
                    "token_endpoint": f"{root}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
                    "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
                },
            )
        elif self.command == "POST" and parts == [directory.tenant, "oauth2", "v2.0", "token"]:
            self.answer(*directory.token(dict(parse_qsl(data.decode()))))
        elif self.headers.get("X-Tests") != directory.secret:
            self.answer(404, failed("invalid_request", "AADSTS90002: Tenant not found."))
        elif parts == ["vaults"]:
            self.answer(*directory.open(json.loads(data)))
        else:
            self.answer(*directory.change(int(parts[1]), json.loads(data)))


class VaultHandler(Handler):
    def route(self, data: bytes) -> None:
        vault = self.server.vault
        assert vault is not None
        if not self.signed_in(vault):
            return
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if query.get("api-version") not in VERSIONS:
            raise bad("The api-version query parameter is missing or not supported.")
        body = self.body(data)
        path = [part for part in parts.path.split("/") if part]
        # Making a key takes long; nothing else waits for it.
        with vault.lock:
            status, answer = self.routed(vault, path, query, body)
        self.answer(status, answer, {"x-ms-keyvault-region": "loopback"})

    def body(self, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data) if data else {}
        except ValueError:
            raise bad("The request body is not valid JSON.") from None
        if not isinstance(found, dict):
            raise bad("The request body is not a JSON object.")
        return found

    def signed_in(self, vault: Vault) -> bool:
        """Whether a valid token came; else the challenge is answered."""
        directory = self.server.directory
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        begins, ends = directory.tokens.get(token, (0.0, 0.0))
        now = time.time()
        if scheme == "Bearer" and begins <= now < ends:
            return True
        resource = "managedhsm.azure.net" if vault.rules.managed else "vault.azure.net"
        challenge = (
            f'Bearer authorization="{directory.url}/{directory.tenant}", '
            f'resource="https://{resource}"'
        )
        message = "AKV10000: Request is missing a Bearer or PoP token."
        if token and begins > now:
            challenge += ', error="invalid_token", error_description="The token is not yet valid."'
            message = "AKV10022: The token is not yet valid."
        elif token:
            # Continuous access evaluation: a token that was revoked is asked for anew, by claims.
            claims = json.dumps(
                {"access_token": {"nbf": {"essential": True, "value": str(int(now))}}}
            )
            encoded = base64.b64encode(claims.encode()).decode()
            challenge += f', error="insufficient_claims", claims="{encoded}"'
            message = "AKV10145: The token was revoked."
        told = {"error": {"code": "Unauthorized", "message": message}}
        self.answer(401, told, {"WWW-Authenticate": challenge})
        return False

    def routed(
        self, vault: Vault, path: list[str], query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, Any]:
        base, verb = f"https://{self.headers['Host']}", self.command
        match [verb, *path]:
            case ["GET", "keys"]:
                return vault.listed(base, query, deleted=False)
            case ["GET", "deletedkeys"]:
                return vault.listed(base, query, deleted=True)
            case ["POST", "keys", name, "create"]:
                return vault.create(base, name, body)
            case ["POST", "keys", name, "rotate"]:
                return vault.rotate(base, name)
            case ["PUT", "keys", name]:
                return vault.import_key(base, name, body)
            case ["GET", "keys", name, "versions"]:
                return vault.versions(base, name, query)
            case ["GET", "keys", name, "rotationpolicy"]:
                return vault.policy(base, name)
            case ["PUT", "keys", name, "rotationpolicy"]:
                return vault.set_policy(base, name, body)
            case ["GET", "keys", name, *version]:
                return vault.get(base, name, "".join(version))
            case ["PATCH", "keys", name, *version]:
                return vault.update(base, name, "".join(version), body)
            case ["DELETE", "keys", name]:
                return vault.delete(base, name)
            case ["POST", "keys", name, version, operation] if operation in OPERATIONS:
                return vault.use(base, name, version, operation, body)
            case ["GET", "deletedkeys", name]:
                return vault.get_deleted(base, name)
            case ["DELETE", "deletedkeys", name]:
                return vault.purge(name)
            case ["POST", "deletedkeys", name, "recover"]:
                return vault.recover(base, name)
            case ["POST", "rng"]:
                return vault.random(body)
        raise Refused(404, "NotFound", "There is no such address.")
