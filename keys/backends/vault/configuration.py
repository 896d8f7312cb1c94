"""What configures a transit engine as a key store. Reaches for nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keys.errors import Invalid

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PATH = re.compile(r"[A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*")
_WORDS = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings as they are used. `ca_file` is "" where the system's authorities are trusted."""

    address: str
    mount: str
    namespace: str
    role_id: str  # "": the credential is a token
    ca_file: str

    @property
    def by_role(self) -> bool:
        return bool(self.role_id)

    @property
    def direct(self) -> bool:
        """Whether nothing may stand in between: a proxy would see the token, or is senseless."""
        parts = urlsplit(self.address)
        return parts.scheme != "https" or _is_loopback(parts.hostname or "")


def read(settings: Mapping[str, Any]) -> Configuration:
    """Return checked settings. Raises Invalid, naming the setting."""
    for name, value in settings.items():
        if not isinstance(value, str):
            raise _invalid(name, "it has to be text")
    auth = settings.get("auth") or "token"
    if auth not in ("token", "approle"):
        raise _invalid("auth", "it is token or approle")
    role_id = settings.get("role_id", "")
    if auth == "approle" and not _WORDS.fullmatch(role_id):
        raise _invalid("role_id", "signing in by approle needs one")
    if auth == "token" and role_id:
        raise _invalid("role_id", "it goes with auth = approle")
    ca_file = settings.get("ca_file", "")
    if ca_file and not (Path(ca_file).is_absolute() and "\x00" not in ca_file):
        raise _invalid("ca_file", "it is an absolute path")
    return Configuration(
        address=_address(settings.get("address", "")),
        mount=_path("mount", settings.get("mount") or "transit"),
        namespace=_path("namespace", settings["namespace"]) if settings.get("namespace") else "",
        role_id=role_id,
        ca_file=ca_file,
    )


def _address(text: str) -> str:
    example = "it is an address such as https://vault.example.org:8200"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _invalid("address", example) from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise _invalid("address", example)
    # Somebody's password may stand in it; so the text isn't repeated.
    if parts.username is not None or parts.password is not None:
        raise _invalid("address", "it must hold no user and password")
    if parts.path not in ("", "/") or parts.query or parts.fragment or not _plain(parts):
        raise _invalid("address", example)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise _invalid(
            "address", "it has to begin with https: the token would travel readable by all"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(parts: SplitResult) -> bool:
    return bool(_WORDS.fullmatch(parts.netloc)) and "\\" not in parts.netloc


def _path(name: str, text: str) -> str:
    path = text.strip("/")
    if len(path) > 200 or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise _invalid(name, "it is a path of letters, digits and . _ ~ -")
    return path


def _invalid(name: str, why: str) -> Invalid:
    return Invalid(f"The setting {name} does not fit: {why}.", field="settings")
