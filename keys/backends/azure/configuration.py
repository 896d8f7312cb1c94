"""The settings of an Azure key store, read and checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keys.errors import Invalid

_HSM = {"": False, "no": False, "yes": True, "managed": True}
# A tenant is a GUID or a domain name; a client (application) is a GUID.
_TENANT = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,252}")
_CLIENT = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """`managed`: a managed HSM; `hardware`: new keys are HSM keys; `loopback`: a server of this machine."""

    vault_url: str
    host: str
    managed: bool
    hardware: bool
    loopback: bool
    tenant_id: str = ""
    client_id: str = ""
    authority: str = ""
    ca_file: str = ""


def read(settings: Mapping[str, Any]) -> Configuration:
    """Return the settings. Raises Invalid, naming the one that is wrong. Reaches for nothing."""
    vault = _https(_text(settings, "vault_url"), "vault_url")
    hsm = _text(settings, "hsm").lower()
    if hsm not in _HSM:
        raise Invalid("The setting hsm is yes, no or managed.", field="settings")
    host = str(vault.hostname)
    # *.managedhsm.azure.net, and .azure.cn and .usgovcloudapi.net of the sovereign clouds.
    managed = hsm == "managed" or ".managedhsm." in host
    return Configuration(
        vault_url=f"https://{vault.netloc}",
        host=host,
        managed=managed,
        hardware=managed or _HSM[hsm],
        loopback=_is_loopback(host),
        tenant_id=_matching(settings, "tenant_id", _TENANT),
        client_id=_matching(settings, "client_id", _CLIENT),
        authority=_authority(_text(settings, "authority")),
        ca_file=_file(_text(settings, "ca_file")),
    )


def _text(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name) or ""
    if not isinstance(value, str):
        raise Invalid(f"The setting {name} is text.", field="settings")
    return value.strip()


def _https(url: str, name: str) -> SplitResult:
    """Return an https address that names a host and nothing else."""
    wrong = Invalid(f"The setting {name} is https://HOST, without a path.", field="settings")
    try:
        parts = urlsplit(url.rstrip("/"))
        _ = parts.port
    except ValueError:
        raise wrong from None
    extra = parts.path or parts.query or parts.fragment or parts.username or parts.password
    # The SDK sends its token over TLS only, also to this machine.
    if parts.scheme != "https" or not parts.hostname or extra or not parts.netloc.isascii():
        raise wrong
    return parts


def _authority(value: str) -> str:
    if not value:
        return ""
    parts = _https(value if "://" in value else f"https://{value}", "authority")
    return f"https://{parts.netloc}"


def _matching(settings: Mapping[str, Any], name: str, shape: re.Pattern[str]) -> str:
    value = _text(settings, name)
    if value and not shape.fullmatch(value):
        raise Invalid(f"The setting {name} is no id.", field="settings")
    return value


def _file(path: str) -> str:
    if path and not Path(path).is_absolute():
        raise Invalid("The setting ca_file is an absolute path.", field="settings")
    return path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authority_is_loopback(configuration: Configuration) -> bool:
    """Whether tokens come from a server of this machine, which no directory of Azure's knows."""
    host = urlsplit(configuration.authority).hostname or ""
    return _is_loopback(host)
