"""The client for asyncio: the same calls, awaited. One event loop at a time; a forked child starts anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import NoReturn, TypeVar

from kms_console_client import answers, calls
from kms_console_client.aio_pool import AsyncPool
from kms_console_client.calls import Call, Context, DecryptItem, EncryptItem
from kms_console_client.client import check_timeout
from kms_console_client.errors import KmsError
from kms_console_client.http import Answer, BadHttp
from kms_console_client.retrying import Retries
from kms_console_client.service import Service, new_request_id

T = TypeVar("T")


class AsyncClient:
    """Uses keys of one KMS Console with one token, on an event loop. Arguments and errors are Client's."""

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
        self._pool = AsyncPool(self._service, connections)

    def __repr__(self) -> str:
        return f"AsyncClient({self._service.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A client holds a token and connections: make one in each process.")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A later call opens new ones."""
        await self._pool.close()

    @property
    def owner(self) -> bytes:
        """A digest of address and token: whose data keys are whose, in a cache that clients share."""
        return self._service.owner

    async def encrypt(
        self, key: str, plaintext: bytes, context: Context | None = None, *, algorithm: str = ""
    ) -> answers.Encrypted:
        """Encrypt up to 64 KiB under a key, named by its id or alias; the context is bound to it."""
        return await self._do(calls.encrypt(key, plaintext, context, algorithm))

    async def decrypt(
        self, key: str, ciphertext: bytes, context: Context | None = None
    ) -> answers.Decrypted:
        """Decrypt what `encrypt` or `generate_data_key` made. Raises CannotDecrypt."""
        return await self._do(calls.decrypt(key, ciphertext, context))

    async def encrypt_batch(
        self, key: str, items: Iterable[EncryptItem], *, algorithm: str = ""
    ) -> answers.Batch[answers.Encrypted]:
        """Encrypt up to 1,000 items, plaintexts or (plaintext, context), under one audit entry."""
        return await self._do(calls.encrypt_batch(key, items, algorithm))

    async def decrypt_batch(
        self, key: str, items: Iterable[DecryptItem]
    ) -> answers.Batch[answers.Decrypted]:
        """Decrypt up to 1,000 items, ciphertexts or (ciphertext, context), under one audit entry."""
        return await self._do(calls.decrypt_batch(key, items))

    async def generate_data_key(
        self, key: str, context: Context | None = None, *, length: int = 32
    ) -> answers.DataKey:
        """Return a new data key of 16 to 64 bytes, in the clear and encrypted under `key`."""
        return await self._do(calls.generate_data_key(key, context, length))

    async def sign(
        self, key: str, message: bytes, *, message_type: str = "message", algorithm: str = ""
    ) -> answers.Signed:
        """Sign a message, or what `message_type` says it is: its "digest", ML-DSA's "external_mu"."""
        return await self._do(calls.sign(key, message, message_type, algorithm))

    async def verify(
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
        return await self._do(
            calls.verify(key, message, signature, message_type, algorithm, version)
        )

    async def mac(self, key: str, message: bytes) -> answers.Maced:
        """Compute a message authentication code."""
        return await self._do(calls.mac(key, message))

    async def verify_mac(
        self, key: str, message: bytes, mac: bytes, *, version: int | None = None
    ) -> answers.Verified:
        """Return whether a MAC is valid, of `version` or the primary one; the answer is true or false."""
        return await self._do(calls.verify_mac(key, message, mac, version))

    async def public_key(self, key: str, *, version: int | None = None) -> answers.PublicKey:
        """Return the public key of a pair, of `version` or the primary one, in DER."""
        return await self._do(calls.public_key(key, version))

    async def _do(self, call: Call[T]) -> T:
        request_id = new_request_id()
        request = self._service.request(call, request_id)
        done = 0
        while True:
            result = await self._try(call, request, request_id)
            if not isinstance(result, KmsError):
                return result
            wait = self._retries.wait(result, done)
            if wait is None:
                raise result
            await asyncio.sleep(wait)
            done += 1

    async def _try(self, call: Call[T], request: bytes, request_id: str) -> T | KmsError:
        answer: Answer | KmsError
        try:
            answer = await self._pool.ask(request, call.limit, self._timeout)
        except (OSError, BadHttp) as error:
            answer = self._service.trouble(error, request_id, self._timeout)
        if isinstance(answer, KmsError):
            return answer
        try:
            return self._service.read(call, answer, request_id)
        except KmsError as error:
            return error
