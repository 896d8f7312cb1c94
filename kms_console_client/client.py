"""The client that waits for each answer. Threads may share one; a forked child opens its own connections."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import NoReturn, TypeVar

from kms_console_client import answers, calls
from kms_console_client.calls import Call, Context, DecryptItem, EncryptItem
from kms_console_client.errors import KmsError
from kms_console_client.http import Answer, BadHttp
from kms_console_client.pool import Pool
from kms_console_client.retrying import Retries
from kms_console_client.service import Service, new_request_id

T = TypeVar("T")


class Client:
    """Uses keys of one KMS Console with one token.

    `timeout`: seconds for each try of a call. `retries`: how many tries follow the first, or
    `Retries` to say more. `ca_file`: a PEM file of the authorities to trust instead of the system's.
    `connections`: how many are open at most; callers beyond that wait for their turn.
    `allow_http`: speak to other machines without TLS, which shows token and plaintexts on the way.

    Every method raises KmsError or a class below it. Neither redirects nor proxies are followed.
    Raises ValueError for an address or a token that can't be one.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = 10.0,
        retries: int | Retries = 3,
        ca_file: str | None = None,
        connections: int = 16,
        allow_http: bool = False,
    ) -> None:
        self._service = Service(url, token, ca_file, allow_http=allow_http)
        self._timeout = check_timeout(timeout)
        self._retries = retries if isinstance(retries, Retries) else Retries(retries)
        self._pool = Pool(self._service, connections)

    def __repr__(self) -> str:
        return f"Client({self._service.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A client holds a token and connections: make one in each process.")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        self._pool.close()

    @property
    def owner(self) -> bytes:
        """A digest of address and token: whose data keys are whose, in a cache that clients share."""
        return self._service.owner

    def encrypt(
        self, key: str, plaintext: bytes, context: Context | None = None, *, algorithm: str = ""
    ) -> answers.Encrypted:
        """Encrypt up to 64 KiB under a key, named by its id or alias; the context is bound to it."""
        return self._do(calls.encrypt(key, plaintext, context, algorithm))

    def decrypt(
        self, key: str, ciphertext: bytes, context: Context | None = None
    ) -> answers.Decrypted:
        """Decrypt what `encrypt` or `generate_data_key` made. Raises CannotDecrypt."""
        return self._do(calls.decrypt(key, ciphertext, context))

    def encrypt_batch(
        self, key: str, items: Iterable[EncryptItem], *, algorithm: str = ""
    ) -> answers.Batch[answers.Encrypted]:
        """Encrypt up to 1,000 items, plaintexts or (plaintext, context), under one audit entry."""
        return self._do(calls.encrypt_batch(key, items, algorithm))

    def decrypt_batch(
        self, key: str, items: Iterable[DecryptItem]
    ) -> answers.Batch[answers.Decrypted]:
        """Decrypt up to 1,000 items, ciphertexts or (ciphertext, context), under one audit entry."""
        return self._do(calls.decrypt_batch(key, items))

    def generate_data_key(
        self, key: str, context: Context | None = None, *, length: int = 32
    ) -> answers.DataKey:
        """Return a new data key of 16 to 64 bytes, in the clear and encrypted under `key`."""
        return self._do(calls.generate_data_key(key, context, length))

    def sign(
        self, key: str, message: bytes, *, message_type: str = "message", algorithm: str = ""
    ) -> answers.Signed:
        """Sign a message, or what `message_type` says it is: its "digest", ML-DSA's "external_mu"."""
        return self._do(calls.sign(key, message, message_type, algorithm))

    def verify(
        self,
        key: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: str = "message",
        algorithm: str = "",
        version: int | None = None,
    ) -> answers.Verified:
        """Return whether a signature is valid, of `version` or the primary one; the answer is true or false."""
        return self._do(calls.verify(key, message, signature, message_type, algorithm, version))

    def mac(self, key: str, message: bytes) -> answers.Maced:
        """Compute a message authentication code."""
        return self._do(calls.mac(key, message))

    def verify_mac(
        self, key: str, message: bytes, mac: bytes, *, version: int | None = None
    ) -> answers.Verified:
        """Return whether a MAC is valid, of `version` or the primary one; the answer is true or false."""
        return self._do(calls.verify_mac(key, message, mac, version))

    def public_key(self, key: str, *, version: int | None = None) -> answers.PublicKey:
        """Return the public key of a pair, of `version` or the primary one, in DER."""
        return self._do(calls.public_key(key, version))

    def _do(self, call: Call[T]) -> T:
        request_id = new_request_id()
        request = self._service.request(call, request_id)
        done = 0
        while True:
            result = self._try(call, request, request_id)
            if not isinstance(result, KmsError):
                return result
            wait = self._retries.wait(result, done)
            if wait is None:
                raise result
            time.sleep(wait)
            done += 1

    def _try(self, call: Call[T], request: bytes, request_id: str) -> T | KmsError:
        answer: Answer | KmsError
        try:
            answer = self._pool.ask(request, call.limit, self._timeout)
        except (OSError, BadHttp) as error:
            answer = self._service.trouble(error, request_id, self._timeout)
        if isinstance(answer, KmsError):
            return answer
        try:
            return self._service.read(call, answer, request_id)
        except KmsError as error:
            return error


def check_timeout(seconds: float) -> float:
    """Return the seconds that a try may take. Raises ValueError for none at all, and for ever."""
    if not 0 < seconds <= 3600:
        raise ValueError("A timeout is between 0 and 3,600 seconds.")
    return seconds
