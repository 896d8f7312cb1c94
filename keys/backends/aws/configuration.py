"""The settings and the credential of an AWS KMS key store, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from keys.errors import Invalid
from keys.secret import Secret

_NAMES = ("region", "endpoint", "profile", "role_arn")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{1,20}){1,3}-[0-9]{1,6}")
_PROFILE = re.compile(r"[A-Za-z0-9_.:@+=/-]{1,128}")
_ROLE = re.compile(r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}")
_REQUIRED, _OPTIONAL = ("access_key_id", "secret_access_key"), ("session_token",)


@dataclass(frozen=True, slots=True)
class Configuration:
    region: str
    endpoint: str = ""
    profile: str = ""
    role_arn: str = ""

    @property
    def on_this_machine(self) -> bool:
        """Whether the endpoint is a test server, which speaks for every service of AWS."""
        return bool(self.endpoint) and urlsplit(self.endpoint).hostname in _LOOPBACK


def read(settings: Mapping[str, Any]) -> Configuration:
    """Return checked settings. Raises Invalid, naming the setting."""
    for name, value in settings.items():
        if name not in _NAMES:
            raise Invalid(f"AWS KMS has no setting {name!r}; it has {', '.join(_NAMES)}.")
        if not isinstance(value, str) or len(value) > 1000:
            raise Invalid(f"{name} must be text.")
    region = settings.get("region", "")
    if not _REGION.fullmatch(region):
        raise Invalid("region must be the name of a region, such as eu-central-1.")
    for name, pattern, example in (
        ("profile", _PROFILE, "the name of a profile"),
        ("role_arn", _ROLE, "the ARN of a role: arn:aws:iam::111122223333:role/NAME"),
    ):
        if settings.get(name) and not pattern.fullmatch(settings[name]):
            raise Invalid(f"{name} must be {example}.")
    return Configuration(
        region,
        _endpoint(settings.get("endpoint", "")),
        settings.get("profile", ""),
        settings.get("role_arn", ""),
    )


def _endpoint(written: str) -> str:
    if not written:
        return ""
    try:
        parts = urlsplit(written)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Invalid("endpoint must be an address, such as https://HOST.") from None
    if not host or parts.username or parts.query or parts.fragment or parts.path.strip("/"):
        raise Invalid("endpoint must be an address without a path, such as https://HOST.")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise Invalid("endpoint must be an https address.")
    return written.rstrip("/")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of AWS; the id names it and is no secret."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


def access_key(credential: Secret) -> AccessKey:
    """Return the access key in a credential's JSON. Raises Invalid, and repeats nothing of it."""
    wrong = Invalid(
        "The credential must be JSON with access_key_id and secret_access_key, and session_token "
        "where there is one."
    )
    try:
        parsed = json.loads(credential.reveal())
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(parsed, dict) or not set(parsed) <= {*_REQUIRED, *_OPTIONAL}:
        raise wrong
    if not all(isinstance(parsed.get(name), str) and parsed[name] for name in _REQUIRED):
        raise wrong
    token = parsed.get("session_token")
    if not (token is None or isinstance(token, str)):
        raise wrong
    return AccessKey(
        parsed["access_key_id"],
        Secret(parsed["secret_access_key"].encode()),
        Secret(token.encode()) if token else None,
    )
