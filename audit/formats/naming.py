"""What an entry's texts are to a reader who may, or may not, see personal data in the clear."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from audit.personal import PREFIX

# Commitments to opened values; None where a value was erased.
Names = Mapping[str, str | None]


def told(value: Any, names: Names) -> Any:
    """Return a value with the commitments opened that `names` has a value for; others stay."""
    if not names:
        return value
    if isinstance(value, str):
        opened = names.get(value) if value.startswith(PREFIX) else None
        return value if opened is None else opened
    if isinstance(value, Mapping):
        return {name: told(member, names) for name, member in value.items()}
    return [told(member, names) for member in value] if isinstance(value, list | tuple) else value


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a text that is an IP address as one; None for any other, such as a commitment."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
