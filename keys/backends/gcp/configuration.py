"""Settings of a key ring of Google Cloud KMS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from keys.backends.base import Protection
from keys.errors import Invalid

DEFAULT_ENDPOINT = "cloudkms.googleapis.com:443"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEVELS = {"software": Protection.SOFTWARE, "hsm": Protection.HSM}
# CryptoKey.destroy_scheduled_duration: at least 24 hours, at most 120 days, 30 days where left out.
WINDOW_LIMITS, DEFAULT_WINDOW = (1, 120), 30

_PART = r"[a-zA-Z0-9_.:-]{1,128}"
_RING = re.compile(rf"projects/{_PART}/locations/[a-z0-9-]{{1,63}}/keyRings/[a-zA-Z0-9_-]{{1,63}}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """`target` is host:port; `plain`: without TLS, which only loopback gets. `window` is in days."""

    key_ring: str
    level: str
    target: str
    plain: bool
    window: int

    @property
    def location(self) -> str:
        """The resource name of the location, which random bytes are asked of."""
        return self.key_ring.partition("/keyRings/")[0]

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine: a test server."""
        return self.target.rpartition(":")[0].strip("[]") in LOOPBACK


def read(settings: Mapping[str, Any]) -> Configuration:
    """Return the settings, checked. Raises Invalid, naming the setting."""
    ring = _text(settings, "key_ring")
    if not _RING.fullmatch(ring):
        raise _invalid("key_ring is projects/PROJECT/locations/LOCATION/keyRings/RING.")
    level = _text(settings, "protection_level").lower() or "software"
    if level not in LEVELS:
        raise _invalid(f"protection_level is one of {', '.join(LEVELS)}.")
    target, plain = _endpoint(_text(settings, "endpoint"))
    return Configuration(ring, level, target, plain, _window(_text(settings, "destroy_days")))


def _endpoint(written: str) -> tuple[str, bool]:
    if not written:
        return DEFAULT_ENDPOINT, False
    try:
        parts = urlsplit(written if "://" in written else f"//{written}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    known = ("", "http", "https")
    if not host or parts.scheme not in known or parts.path.strip("/") or parts.query:
        raise _invalid(
            "endpoint is HOST or HOST:PORT, such as cloudkms.europe-west3.rep.googleapis.com."
        )
    if parts.username is not None:
        raise _invalid("endpoint holds no name and no password.")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise _invalid("endpoint without TLS (http://) is for a test server on this machine only.")
    # On this machine TLS has to be asked for (https://): a server of a test has none.
    plain = host in LOOPBACK and parts.scheme != "https"
    if plain and port is None:
        raise _invalid("endpoint of a test server names its port.")
    return f"[{host}]:{port or 443}" if ":" in host else f"{host}:{port or 443}", plain


def _window(written: str) -> int:
    least, most = WINDOW_LIMITS
    if not written:
        return DEFAULT_WINDOW
    if not (written.isascii() and written.isdigit() and least <= int(written[:4]) <= most):
        raise _invalid(f"destroy_days is a whole number from {least} to {most}.")
    return int(written)


def _text(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _invalid(f"{name} is text.")
    return value.strip()


def _invalid(detail: str) -> Invalid:
    return Invalid(f"The setting {detail}", field="settings")
