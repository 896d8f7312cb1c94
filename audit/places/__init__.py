"""Places outside: where checkpoints are published and bundles of entries are kept.

An address of the deployment's configuration says which: `file:///folder`, `s3://bucket/prefix` or
`https://host/hook`. Never an address that somebody gave over a door.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from audit.errors import PlaceError
from audit.places.base import Place

__all__ = ["Place", "open_place"]


def open_place(url: str) -> Place:
    """Return the place at an address; nothing is connected yet. Raises PlaceError where it can't be one."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise PlaceError("a place's address can't be read") from None
    if scheme == "file":
        from audit.places.files import FilePlace

        return FilePlace(url)
    if scheme == "s3":
        from audit.places.s3 import S3Place

        return S3Place(url)
    if scheme in ("https", "http"):
        from audit.places.webhook import WebhookPlace

        return WebhookPlace(url)
    raise PlaceError("a place's address begins with file://, s3:// or https://")
