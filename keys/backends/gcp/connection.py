"""One channel to Google Cloud KMS, the credential for it, and one way to call."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.transport.requests import Request
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcTransport,
)
from google.oauth2 import service_account

from keys.backends.gcp import failures
from keys.backends.gcp.configuration import Configuration
from keys.errors import BackendError, BackendRefused, BackendUnavailable, Invalid
from keys.secret import Secret

_CLIENT = "google.cloud.kms_v1.services.key_management_service"
# At DEBUG Google's libraries log whole requests, answers and metadata: plaintext, the bearer token,
# the signed assertion. Each by its own name, too: GOOGLE_SDK_PYTHON_LOGGING_SCOPE may name any of them.
_LOGGERS = (
    "google.cloud.kms_v1",
    f"{_CLIENT}.client",
    f"{_CLIENT}.transports.grpc",
    "google.api_core",
    "google.auth",
    "google.auth._default",
    "google.auth.transport.requests",
    "google.oauth2",
    "google.oauth2._client",
    "google.oauth2.service_account",
)
CALL_SECONDS = 15.0
TOKEN_SECONDS = 5.0
SCOPES = ("https://www.googleapis.com/auth/cloudkms",)
TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105 an address
# Nothing that two readers of a URL could read as two hosts.
_LOOPBACK_URL = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?/[a-z0-9/_-]*")
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 60_000),
    # A proxy of the environment is for the internet, not for a test server on this machine.
    ("grpc.enable_http_proxy", 1),
)


class _ShortRequest(Request):
    """google-auth's own transport, with a deadline that fits ours."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        named["timeout"] = TOKEN_SECONDS
        return super().__call__(*arguments, **named)  # type: ignore[no-untyped-call]


class Connection:
    """Opened on first use, never before a fork; calls from several threads share the channel."""

    def __init__(self, configuration: Configuration, credential: Secret | None) -> None:
        # Not once for all: whoever configures logging later sets their levels back.
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.INFO))
        self._configuration = configuration
        self._credential = credential
        self._lock = threading.Lock()
        self._client: kms_v1.KeyManagementServiceClient | None = None
        self._channel: grpc.Channel | None = None
        self._tokens: Any = None
        self._closed = False

    def call(self, method: str, request: Mapping[str, Any]) -> Any:
        """Return the protobuf answer of one method, named as KeyManagementServiceClient names it.

        `request`: the fields of google.cloud.kms.v1's request of that method.

        One attempt. For lists: the one page that was asked for. Raises errors of keys.errors:
        NoMaterial for what isn't there, AlreadyExists, Invalid for a refused argument, StateForbids
        for a failed precondition, BackendUnavailable once this was closed, and those of
        keys.backends.gcp.failures.
        """
        client = self._opened()
        message = _written(method, request)
        headers = self._authorization()
        try:
            answer = getattr(client, method)(
                request=message, retry=None, timeout=CALL_SECONDS, metadata=headers
            )
            if hasattr(answer, "pages"):
                answer = next(iter(answer.pages))
        except api.GoogleAPICallError as error:
            raise failures.of_call(error) from None
        except (ValueError, TypeError):
            # What gRPC says of a channel that another thread closed meanwhile: nothing was asked.
            if self._closed:
                raise _closing() from None
            raise BackendError("Google Cloud KMS could not be asked.") from None
        return type(answer).pb(answer)

    def close(self) -> None:
        """Let go of the channel; calls that come later, or are under way, are BackendUnavailable."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._client = self._channel, None, None
        if channel is not None:
            channel.close()

    def _opened(self) -> kms_v1.KeyManagementServiceClient:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise _closing()
            if self._client is None:
                self._tokens = self._token_source()
                self._channel = self._new_channel()
                transport = KeyManagementServiceGrpcTransport(channel=self._channel)
                self._client = kms_v1.KeyManagementServiceClient(transport=transport)
            return self._client

    def _new_channel(self) -> grpc.Channel:
        if self._configuration.plain:
            options = (*_OPTIONS[:-1], ("grpc.enable_http_proxy", 0))
            return grpc.insecure_channel(self._configuration.target, options)
        return grpc.secure_channel(
            self._configuration.target, grpc.ssl_channel_credentials(), _OPTIONS
        )

    def _token_source(self) -> Any:
        """Return google-auth credentials, or None for a test server that asks for none."""
        if self._credential is not None:
            return service_account_of(self._credential, self._configuration)
        if self._configuration.plain:
            return None
        try:
            found, _ = google.auth.default(scopes=SCOPES, request=_ShortRequest())
        except auth.GoogleAuthError as error:
            raise failures.of_credential(error) from None
        return found

    def _authorization(self) -> list[tuple[str, str]]:
        """Return the call's metadata with a valid access token, fetched anew where it expired."""
        tokens = self._tokens
        if tokens is None:
            return []
        headers: dict[str, str] = {}
        try:
            if not tokens.valid:
                with self._lock:
                    if not tokens.valid:
                        tokens.refresh(_ShortRequest())
            tokens.apply(headers)
        except auth.GoogleAuthError as error:
            raise failures.of_credential(error) from None
        return [(name.lower(), value) for name, value in headers.items()]


def _closing() -> BackendUnavailable:
    return BackendUnavailable("This key store is being closed.")


def _written(method: str, request: Mapping[str, Any]) -> Any:
    """Return a method's request. Raises Invalid for what no protobuf takes: half a surrogate pair, say."""
    kind: Any = getattr(kms_v1, method.title().replace("_", "") + "Request")
    try:
        return kind(request)
    except (ValueError, TypeError):
        raise Invalid("The request can't be written for Google Cloud KMS.") from None


def service_account_of(credential: Secret, configuration: Configuration) -> Any:
    """Return the credentials of a key file. Raises BackendRefused; nothing of it is repeated."""
    try:
        written = json.loads(credential.reveal())
        if not isinstance(written, dict) or written.get("type") != "service_account":
            raise BackendRefused("The credential is not a service account's key file.")
        _check_endpoint(written.get("token_uri"), configuration)
        make: Any = service_account.Credentials.from_service_account_info
        return make(written, scopes=SCOPES)
    except (ValueError, TypeError, KeyError, auth.GoogleAuthError):
        raise BackendRefused("The credential is not a service account's key file.") from None


def _check_endpoint(written: Any, configuration: Configuration) -> None:
    """Let tokens be had from Google only, and from this machine for a test server on it.

    A key file is not to send this process, with a signed assertion, to an address of its choice.
    """
    if written == TOKEN_ENDPOINT or not isinstance(written, str):
        return  # without any, the key file is refused as a whole
    if not (configuration.loopback and _LOOPBACK_URL.fullmatch(written)):
        raise BackendRefused(f"The key file's token_uri is not {TOKEN_ENDPOINT}.")
