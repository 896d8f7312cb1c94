"""A server that speaks the protocol of Azure Key Vault."""

from __future__ import annotations
