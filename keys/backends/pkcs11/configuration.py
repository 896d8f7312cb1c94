"""The settings of a PKCS#11 key store, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings

from keys.backends.pkcs11.connection import Selector
from keys.errors import Invalid

DEFAULT_SESSIONS = 8
MAX_SESSIONS = 64
_NAMES = frozenset({"module", "token_label", "token_serial", "slot", "sessions", "iv_by_token"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """`iv_by_token`: the token makes GCM's nonces and writes them where we left zeros (CloudHSM)."""

    selector: Selector
    sessions: int = DEFAULT_SESSIONS
    iv_by_token: bool = False


def module_folders() -> tuple[str, ...]:
    """Return the folders a module may lie in."""
    return tuple(django_settings.PKCS11_MODULE_FOLDERS)


def read(settings: Mapping[str, Any]) -> Configuration:
    """Return checked settings. Raises Invalid, naming the setting."""
    for name in settings:
        if name not in _NAMES:
            raise Invalid(
                f"A PKCS#11 key store has no setting {name!r}; it has {', '.join(sorted(_NAMES))}."
            )
    label, serial = _text(settings, "token_label"), _text(settings, "token_serial")
    if label is None and serial is None:
        raise Invalid("Name the token: token_label or token_serial.")
    by_token = settings.get("iv_by_token", False)
    if not isinstance(by_token, bool):
        raise Invalid("iv_by_token must be true or false.")
    sessions = _number(settings, "sessions", 1, MAX_SESSIONS)
    selector = Selector(_module(settings), label, serial, _number(settings, "slot", 0, 2**63))
    return Configuration(selector, DEFAULT_SESSIONS if sessions is None else sessions, by_token)


def _module(settings: Mapping[str, Any]) -> str:
    written = _text(settings, "module")
    if written is None:
        raise Invalid("Name the vendor's library: module.")
    # A module is code that runs in this process. Who may configure a key store in the console may
    # not therefore choose any file on the host: the folders are the deployment's choice.
    path = Path(written)
    folders = [Path(folder).resolve() for folder in module_folders()]
    if not path.is_absolute() or not any(path.resolve().is_relative_to(one) for one in folders):
        raise Invalid(f"module must be a library under {', '.join(module_folders())}.")
    return str(path.resolve())


def _text(settings: Mapping[str, Any], name: str) -> str | None:
    value = settings.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 255 or "\x00" in value:
        raise Invalid(f"{name} must be text of at most 255 characters.")
    return value


def _number(settings: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = settings.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)  # as a form sends it
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Invalid(f"{name} must be a whole number from {least} to {most}.")
    return value
