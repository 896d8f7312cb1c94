"""A server that speaks the protocol of Google Cloud KMS."""

from __future__ import annotations
