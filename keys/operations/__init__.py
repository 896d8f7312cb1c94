"""Using a key. Bytes in, bytes out; every answer names the key and the version that served.

Each function is performed by the gate: decided on before, recorded after, and only then returned.
Call one as `encrypt(caller, key, plaintext, context=…)`, await `encrypt.aio(…)` on an event loop, or
hand many items to `encrypt.batch(caller, key, items)`.
"""

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
from keys.operations.public import RANDOM_LIMIT, PublicKey, public_key, random
from keys.operations.sign import Maced, Signed, mac, sign, verify, verify_mac

__all__ = [
    "RANDOM_LIMIT",
    "DataKey",
    "DataKeyPair",
    "Decrypted",
    "DerivedKey",
    "Encapsulated",
    "Encrypted",
    "Maced",
    "PublicKey",
    "ReEncrypted",
    "Served",
    "SharedSecret",
    "Signed",
    "Unwrapped",
    "Verified",
    "Wrapped",
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
