"""The client of KMS Console for applications: keys used over HTTP, and data of any size encrypted here.

    from kms_console_client import Client, Envelope

    with Client("https://kms.example", token) as client:
        sealed = client.encrypt("invoices", b"Hello", {"tenant": "north"})
        envelope = Envelope(client, "invoices")
        message = envelope.encrypt(large, {"tenant": "north"})

It needs Python 3.11 or newer and `cryptography`, nothing else. docs/client.md explains it, and the
envelope's bytes.
"""

from kms_console_client.aio import AsyncClient
from kms_console_client.aio_envelope import AsyncEnvelope
from kms_console_client.answers import (
    Batch,
    DataKey,
    Decrypted,
    Encrypted,
    Maced,
    PublicKey,
    Signed,
    Verified,
)
from kms_console_client.cache import DataKeyCache
from kms_console_client.client import Client
from kms_console_client.envelope import Envelope
from kms_console_client.errors import (
    BadAnswer,
    CannotDecrypt,
    Conflict,
    Denied,
    InvalidRequest,
    KmsError,
    NotFound,
    ServerFailed,
    Throttled,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Unsupported,
    Untrusted,
)
from kms_console_client.retrying import Retries

__all__ = [
    "AsyncClient",
    "AsyncEnvelope",
    "BadAnswer",
    "Batch",
    "CannotDecrypt",
    "Client",
    "Conflict",
    "DataKey",
    "DataKeyCache",
    "Decrypted",
    "Denied",
    "Encrypted",
    "Envelope",
    "InvalidRequest",
    "KmsError",
    "Maced",
    "NotFound",
    "PublicKey",
    "Retries",
    "ServerFailed",
    "Signed",
    "Throttled",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Unsupported",
    "Untrusted",
    "Verified",
]
