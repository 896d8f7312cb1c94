"""moto and ministack, which speak the protocol of AWS KMS."""

from __future__ import annotations
