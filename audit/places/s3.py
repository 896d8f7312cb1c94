"""A bucket as a place: s3://bucket/prefix, at AWS or at whatever speaks the same protocol.

Options: `endpoint` (another server's address; path-style addressing then, unless
`addressing=virtual`), `region`. Credentials are found by the SDK's own chain and never stand in an
address. Retention is S3 Object Lock in compliance mode, which not even the account's owner shortens;
the bucket must have been made with Object Lock.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import ipaddress
import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.parse import parse_qs, urlsplit

from audit.errors import PlaceError, PlaceMissing, PlaceUnavailable
from audit.places.base import CHUNK, Place, checked, collected, sha256

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 3
# One request carries up to 5 GiB; bundles are far smaller.
PUT_LIMIT = 5 * 1024**3
# The SHA-256 of what is kept, in hex, as the object's metadata.
_DIGEST = "sha256"
_OPTIONS = frozenset({"endpoint", "region", "addressing"})
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})
_PASSING = frozenset(
    {"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException"}
    | {"TooManyRequests", "InternalError", "ServiceUnavailable", "ExpiredToken", "OperationAborted"}
)


class S3Place(Place):
    """Objects of a bucket below a prefix. Made cheaply: the SDK is loaded on first use."""

    enforces = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        try:
            parts = urlsplit(url)
            options = parse_qs(
                parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
            )
        except ValueError:
            raise PlaceError("the address of a bucket can't be read") from None
        if parts.username or parts.password or parts.fragment or options.keys() - _OPTIONS:
            raise PlaceError("the address of a bucket has the options endpoint, region, addressing")
        if not parts.netloc or any(len(values) != 1 for values in options.values()):
            raise PlaceError("the address of a bucket is s3://bucket/prefix, each option once")
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        if self._prefix:
            checked(self._prefix)
        self._options = {name: values[0] for name, values in options.items()}
        if "endpoint" in self._options:
            _check_endpoint(self._options["endpoint"])
        self._lock = threading.Lock()
        self._made: Any = None

    def put(
        self,
        name: str,
        data: bytes | Path,
        *,
        retain_until: datetime | None = None,
        hold: bool = False,
        replace: bool = False,
    ) -> None:
        key, digest = self._key(name), sha256(data)
        wanted: dict[str, Any] = {"Metadata": {_DIGEST: digest.hex()}}
        if retain_until is not None:
            wanted |= {
                "ObjectLockMode": "COMPLIANCE",
                "ObjectLockRetainUntilDate": _utc(retain_until),
            }
        if hold:
            wanted["ObjectLockLegalHoldStatus"] = "ON"
        if replace or not self._is_there(key, digest):
            try:
                self._send(key, data, digest, wanted if replace else {**wanted, "IfNoneMatch": "*"})
            except FileExistsError:  # somebody was quicker
                if not self._is_there(key, digest):
                    raise PlaceUnavailable("somebody else is writing under that name") from None
        self._ensure_locked(key, retain_until, hold)

    def get(self, name: str) -> bytes:
        return collected(self.read(name))

    def read(self, name: str) -> Iterator[bytes]:
        body = self._call("get_object", Key=self._key(name))["Body"]
        with contextlib.closing(body):
            while chunk := _translated(functools.partial(body.read, CHUNK)):
                yield chunk

    def names(self, prefix: str = "") -> list[str]:
        start = f"{self._prefix}/" if self._prefix else ""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=start + prefix, **more)
            found += [str(one["Key"])[len(start) :] for one in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return sorted(found)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def retained_until(self, name: str) -> datetime | None:
        found = self._call("head_object", Key=self._key(name))
        until: datetime | None = found.get("ObjectLockRetainUntilDate")
        return until if found.get("ObjectLockMode") == "COMPLIANCE" else None

    def hold(self, name: str, on: bool) -> None:
        status = {"Status": "ON" if on else "OFF"}
        self._call("head_object", Key=self._key(name))  # not every server says NoSuchKey below
        self._call("put_object_legal_hold", Key=self._key(name), LegalHold=status)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{checked(name)}" if self._prefix else checked(name)

    def _is_there(self, key: str, digest: bytes) -> bool:
        """Tell whether the object is there with these bytes. Raises PlaceError where with others."""
        try:
            found = self._call("head_object", Key=key)
        except PlaceMissing:
            return False
        if found.get("Metadata", {}).get(_DIGEST) != digest.hex():
            raise PlaceError("something else is kept under that name, and is not overwritten")
        return True

    def _send(self, key: str, data: bytes | Path, digest: bytes, wanted: Mapping[str, Any]) -> None:
        """Raises FileExistsError where `wanted` forbids to overwrite and something is there."""
        size = len(data) if isinstance(data, bytes) else _translated(data.stat).st_size
        if size > PUT_LIMIT:
            raise PlaceError("more than 5 GiB can't be kept under one name")
        checksum = base64.b64encode(digest).decode()
        with contextlib.ExitStack() as stack:
            body = data
            if isinstance(data, Path):
                body = stack.enter_context(_translated(functools.partial(data.open, "rb")))
            self._call(
                "put_object",
                Key=key,
                Body=body,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                **wanted,
            )

    def _ensure_locked(self, key: str, retain_until: datetime | None, hold: bool) -> None:
        """Look whether the lock was taken: a server that knows no Object Lock ignores the request."""
        if retain_until is None and not hold:
            return
        if hold and self._call("head_object", Key=key).get("ObjectLockLegalHoldStatus") != "ON":
            self._call("put_object_legal_hold", Key=key, LegalHold={"Status": "ON"})
        found = self._call("head_object", Key=key)
        if retain_until is not None and not _retained(found, retain_until):
            retention = {"Mode": "COMPLIANCE", "RetainUntilDate": _utc(retain_until)}
            self._call("put_object_retention", Key=key, Retention=retention)
            found = self._call("head_object", Key=key)
        held = not hold or found.get("ObjectLockLegalHoldStatus") == "ON"
        if not held or (retain_until is not None and not _retained(found, retain_until)):
            raise PlaceError("the bucket does not lock what it keeps: it needs Object Lock")

    def _call(self, verb: str, **parameters: Any) -> Any:
        """Call the SDK. Raises as Place says, and FileExistsError where a condition was not met."""
        return _translated(lambda: getattr(self._client(), verb)(Bucket=self._bucket, **parameters))

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _client(self._options)
            return self._made


def _client(options: Mapping[str, str]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise PlaceError("a bucket needs the optional dependency 'aws'") from None

    # At the level DEBUG the SDK writes requests with all that is in them.
    for name in ("boto3", "botocore"):
        logging.getLogger(name).setLevel(logging.INFO)
    style = options.get("addressing") or ("path" if "endpoint" in options else "auto")
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": style},
        # We send a SHA-256 of our own; other servers don't know the SDK's trailing checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=options.get("endpoint"),
        region_name=options.get("region"),
        config=config,
    )
    _check_endpoint(client.meta.endpoint_url)  # the SDK's own settings may name one, too
    return client


def _check_endpoint(url: str) -> None:
    """Raise PlaceError unless this is https, or plain http to this machine, of which no name is asked."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http"):
        raise PlaceError("the bucket's endpoint is no address")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise PlaceError("without TLS only this machine is talked to: the endpoint needs https")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _translated(call: Any) -> Any:
    """Return what `call` returns, with the SDK's errors as ours; no message of the SDK gets out."""
    try:
        return call()
    except (PlaceError, PlaceUnavailable):
        raise
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            raise
        raise failure from None


def _failure(error: Exception) -> Exception | None:
    from botocore import exceptions as sdk

    if isinstance(error, sdk.ClientError):
        return _refused(error.response)
    permanent = (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.ParamValidationError,
        sdk.NoRegionError,
        sdk.InvalidRegionError,
        sdk.ProfileNotFound,
    )
    if isinstance(error, permanent):
        return PlaceError(f"the bucket can't be asked: {type(error).__name__}")
    # Before OSError: time-outs and failures of TLS are both.
    passing = sdk.BotoCoreError | sdk.HTTPClientError | ConnectionError | TimeoutError | SSLError
    if isinstance(error, passing):
        return PlaceUnavailable(f"the bucket does not answer: {type(error).__name__}")
    if isinstance(error, OSError):
        return PlaceError(f"what to keep can't be read: {error.strerror}")
    if isinstance(error, ValueError):  # an endpoint that is no address
        return PlaceError("the bucket's endpoint is no address")
    return None


def _refused(answer: Mapping[str, Any]) -> Exception:
    code = str(answer.get("Error", {}).get("Code", ""))[:60]
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return PlaceMissing("nothing has that name")
    if code in _TAKEN:
        return FileExistsError(code)
    if code in _PASSING or status >= 500 or status == 429:
        return PlaceUnavailable(f"the bucket can't answer now: {_word(code)}")
    return PlaceError(f"the bucket refused: {_word(code)}")


def _word(code: str) -> str:
    return code if code.isalnum() else "an unknown error"


def _retained(found: Mapping[str, Any], until: datetime) -> bool:
    kept = found.get("ObjectLockRetainUntilDate")
    return (
        found.get("ObjectLockMode") == "COMPLIANCE"
        and isinstance(kept, datetime)
        and _utc(kept) >= _utc(until)
    )


def _utc(time: datetime) -> datetime:
    """Return a time in whole seconds, which is all that S3 keeps; rounded down."""
    return time.astimezone(UTC).replace(microsecond=0)
