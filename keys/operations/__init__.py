"""Using a key. Bytes in, bytes out; every answer names the key and the version that served.

Each function is performed by the gate: decided on before, recorded after, and only then returned.
Call one as `encrypt(caller, key, plaintext, context=…)`, await `encrypt.aio(…)` on an event loop, or
hand many items to `encrypt.batch(caller, key, items)`.
"""

from keys.gate import Batch, Item
from keys.operations.agree import (
    DerivedKey,
    Encapsulated,
    Unwrapped,
    Wrapped,
    decapsulate,
    derive_key,
    derive_shared_secret,
    encapsulate,
    unwrap_key,
    wrap_key,
)
from keys.operations.certificates import CertificateRequest, certificate_request
from keys.operations.crypt import (
    DataKey,
    DataKeyPair,
    Decrypted,
    Encrypted,
    ReEncrypted,
    decrypt,
    encrypt,
    generate_data_key,
    generate_data_key_pair,
    generate_data_key_pair_without_plaintext,
    generate_data_key_without_plaintext,
    re_encrypt,
)
from keys.operations.parts import Served, SharedSecret, Verified
from keys.operations.public import RANDOM_LIMIT, KeySet, PublicKey, key_set, public_key, random
from keys.operations.sign import Maced, Signed, mac, sign, verify, verify_mac

__all__ = [
    "RANDOM_LIMIT",
    "Batch",
    "CertificateRequest",
    "DataKey",
    "DataKeyPair",
    "Decrypted",
    "DerivedKey",
    "Encapsulated",
    "Encrypted",
    "Item",
    "KeySet",
    "Maced",
    "PublicKey",
    "ReEncrypted",
    "Served",
    "SharedSecret",
    "Signed",
    "Unwrapped",
    "Verified",
    "Wrapped",
    "certificate_request",
    "decapsulate",
    "decrypt",
    "derive_key",
    "derive_shared_secret",
    "encapsulate",
    "encrypt",
    "generate_data_key",
    "generate_data_key_pair",
    "generate_data_key_pair_without_plaintext",
    "generate_data_key_without_plaintext",
    "key_set",
    "mac",
    "public_key",
    "random",
    "re_encrypt",
    "sign",
    "unwrap_key",
    "verify",
    "verify_mac",
    "wrap_key",
]
