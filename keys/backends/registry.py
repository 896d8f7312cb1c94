"""Which kinds of key store there are, and this process's one live Backend for each store."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import stat
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from django.conf import settings as django_settings

from keys.backends.base import Backend, Protection
from keys.backends.bounded import Bounded
from keys.errors import BackendUnavailable, Invalid, Unsupported
from keys.secret import Secret

CREDENTIAL_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a kind of key store: text, and never a secret."""

    name: str
    label: str
    help: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key store. `path` is imported only when a store of the kind is used."""

    name: str
    label: str
    help: str
    protection: Protection
    path: str
    # 0: quick and local, called directly. Else the number of threads that may be inside it at once.
    workers: int = 0
    needs_credential: bool = False
    settings: tuple[Setting, ...] = ()
    # What its credential is, where it takes one.
    credential: str = ""
    # It keeps states of its own: the console brings it in line, compares, discovers and adopts.
    remote: bool = False
    # The settings that say which keys it leads to, however somebody signs in; None: every row has its own.
    # () where handles are the same everywhere, as AWS's are.
    place: tuple[str, ...] | None = None
    # The settings that must stay as they are while it has keys: their handles mean nothing elsewhere.
    identity: tuple[str, ...] = ()
    # The optional extra of this package that its library comes with: pip install kms-console[aws].
    extra: str = ""


KINDS: Mapping[str, Kind] = {
    row.name: row
    for row in (
        Kind(
            "software",
            "Software",
            "Keys computed by this service, wrapped under its root key in a database of their own.",
            Protection.SOFTWARE,
            "keys.backends.software.backend.SoftwareBackend",
        ),
        Kind(
            "pkcs11",
            "Hardware security module (PKCS#11)",
            "Keys that are made in the module and can't leave it.",
            Protection.HSM,
            "keys.backends.pkcs11.backend.Pkcs11Backend",
            workers=8,
            needs_credential=True,
            place=("module", "token_label", "token_serial"),
            settings=(
                Setting("module", "Module", "Path of the vendor's library.", required=True),
                Setting("token_label", "Token label", "This, or the serial number."),
                Setting("token_serial", "Token serial number"),
                Setting("slot", "Slot", "Only where label and serial number aren't enough."),
            ),
            credential="The user PIN.",
        ),
        Kind(
            "aws",
            "AWS KMS",
            "Keys in one account and region of AWS KMS, in its hardware modules.",
            Protection.HSM,
            "keys.backends.aws.backend.AwsBackend",
            workers=16,
            remote=True,
            place=(),
            identity=("region",),
            extra="aws",
            settings=(
                Setting("region", "Region", "Such as eu-central-1.", required=True),
                Setting("endpoint", "Endpoint", "Only for a VPC endpoint or a test server."),
                Setting("profile", "Profile", "A profile of the SDK's own configuration."),
                Setting("role_arn", "Role", "ARN of a role to assume."),
            ),
            credential="JSON with access_key_id and secret_access_key (and session_token). Left out: "
            "the SDK's own chain (environment, profile, instance role).",
        ),
        Kind(
            "azure",
            "Azure Key Vault",
            "Keys in one Azure key vault or managed HSM.",
            Protection.SOFTWARE,
            "keys.backends.azure.backend.AzureBackend",
            workers=16,
            remote=True,
            place=("vault_url",),
            identity=("vault_url",),
            extra="azure",
            settings=(
                Setting("vault_url", "Vault", "https://NAME.vault.azure.net", required=True),
                Setting(
                    "hsm",
                    "Hardware keys",
                    "yes: make RSA-HSM and EC-HSM keys (premium tier); managed: a managed HSM under "
                    "a name of its own.",
                ),
                Setting("tenant_id", "Tenant", "Where the credential is a client secret."),
                Setting("client_id", "Client", "Of the application, or of a managed identity."),
                Setting("authority", "Authority", "Only for a sovereign cloud or a test server."),
                Setting(
                    "ca_file", "Certificate authority", "Path of a PEM file, for a private one."
                ),
            ),
            credential="The application's client secret. Left out: the SDK's own chain (environment, "
            "workload identity, managed identity).",
        ),
        Kind(
            "gcp",
            "Google Cloud KMS",
            "Keys in one key ring of Google Cloud KMS.",
            Protection.SOFTWARE,
            "keys.backends.gcp.backend.GcpBackend",
            workers=16,
            remote=True,
            place=(),
            identity=("key_ring",),
            extra="gcp",
            settings=(
                Setting(
                    "key_ring",
                    "Key ring",
                    "projects/PROJECT/locations/LOCATION/keyRings/RING",
                    required=True,
                ),
                Setting("protection_level", "Protection level", "software (the default) or hsm."),
                Setting("endpoint", "Endpoint", "Only for a regional endpoint or a test server."),
                Setting(
                    "destroy_days",
                    "Destruction window",
                    "Days that Google waits with a destruction, 1 to 120; 30 where left out. "
                    "Fixed for a key when it is made.",
                ),
            ),
            credential="A service account's key file (JSON). Left out: application default credentials.",
        ),
        Kind(
            "vault",
            "HashiCorp Vault or OpenBao",
            "Keys of one transit secrets engine.",
            Protection.SOFTWARE,
            "keys.backends.vault.backend.VaultBackend",
            workers=16,
            needs_credential=True,
            remote=True,
            place=("address", "mount", "namespace"),
            identity=("address", "mount", "namespace"),
            extra="vault",
            settings=(
                Setting("address", "Address", "https://vault.example.org:8200", required=True),
                Setting("mount", "Mount", "Path of the transit engine; transit where left out."),
                Setting("namespace", "Namespace"),
                Setting("auth", "Sign in by", "token (the default) or approle."),
                Setting("role_id", "Role id", "For approle; the credential is then its secret id."),
                Setting(
                    "ca_file", "Certificate authority", "Path of a PEM file, for a private one."
                ),
            ),
            credential="The token, or the AppRole's secret id.",
        ),
    )
}

# The process id is part of the key: sessions and threads do not survive a fork.
_backends: dict[tuple[int, uuid.UUID, str], Backend] = {}
_lock = threading.Lock()


def kinds() -> tuple[Kind, ...]:
    """Return every kind of key store that can be configured."""
    return tuple(KINDS.values())


def backend_class(kind: str) -> type[Backend]:
    """Import and return a kind's class.

    Raises Unsupported for an unknown kind, BackendUnavailable where its library isn't installed.
    """
    if kind not in KINDS:
        raise Unsupported(f"There is no kind of key store {kind!r}; there are {', '.join(KINDS)}.")
    row = KINDS[kind]
    module, _, name = row.path.rpartition(".")
    try:
        return cast("type[Backend]", getattr(importlib.import_module(module), name))
    except ImportError as error:
        how = f" Install it: pip install 'kms-console[{row.extra}]'." if row.extra else ""
        raise BackendUnavailable(
            f"Key stores of the kind {row.label!r} need the package {error.name}, "
            f"which is not installed.{how}"
        ) from None


def check_settings(kind: str, settings: Mapping[str, Any], credentials_reference: str) -> None:
    """Raise Invalid where a key store could not be configured like this. Reaches for nothing."""
    cls = backend_class(kind)
    known = {setting.name: setting for setting in KINDS[kind].settings}
    for name in settings:
        if name not in known:
            there_are = ", ".join(known) or "none"
            raise Invalid(
                f"{KINDS[kind].label} has no setting {name!r}; there are: {there_are}.",
                field="settings",
            )
    for setting in known.values():
        if setting.required and not settings.get(setting.name):
            raise Invalid(
                f"{KINDS[kind].label} needs the setting {setting.name}: {setting.help or setting.label}",
                field="settings",
            )
    cls.check_settings(settings)
    _parse_reference(credentials_reference)
    if KINDS[kind].needs_credential and not credentials_reference:
        raise Invalid("This kind of key store needs a credential: env:NAME or file:/path.")


def protection(kind: str, settings: Mapping[str, Any]) -> Protection:
    """Return how a key store configured like this protects its keys."""
    return backend_class(kind).protection_with(settings)


def backend_for(
    store_id: uuid.UUID,
    kind: str,
    settings: Mapping[str, Any],
    credentials_reference: str,
    known: str = "",
) -> Backend:
    """Return this process's backend for a key store, made on first use.

    `known` is the digest of the configuration, where the caller has it already. A change of settings
    or reference makes a new one. Raises Invalid, Unsupported or BackendUnavailable (the credential
    can't be read).
    """
    key = (os.getpid(), store_id, known or digest(kind, settings, credentials_reference))
    found = _backends.get(key)  # a plain dict read is atomic; the hot path takes no lock
    if found is not None:
        return found
    with _lock:
        found = _backends.get(key)
        if found is None:
            found = _made(store_id, kind, settings, credentials_reference)
            superseded = _pop(store_id)
            _backends[key] = found
        else:
            superseded = []
    _close(superseded)
    return found


def forget(store_id: uuid.UUID) -> None:
    """Close this process's backend for a key store; the next use makes a new one."""
    with _lock:
        gone = _pop(store_id)
    _close(gone)


def resolve_credential(reference: str) -> Secret | None:
    """Return the secret that a reference names: "" (none), "env:NAME" or "file:/absolute/path".

    Raises Invalid for any other form and BackendUnavailable where it can't be read. Messages name
    the reference, never the value. One newline at the end of a file is not part of the secret.
    """
    scheme, name = _parse_reference(reference)
    if not scheme:
        return None
    if scheme == "env":
        value = os.environ.get(name)
        if not value:
            raise BackendUnavailable(f"The credential {reference} is not set.")
        return Secret(value.encode())
    try:
        content = _read_plain_file(name)
    except OSError as error:
        raise BackendUnavailable(
            f"The credential {reference} can't be read: {error.strerror}."
        ) from None
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not content or len(content) > CREDENTIAL_LIMIT:
        raise BackendUnavailable(f"The credential {reference} is empty or too long.")
    return Secret(content)


def _read_plain_file(path: str) -> bytes:
    """Return a file's beginning. Raises OSError, also for a pipe or a device, which could wait for ever."""
    # Not blocking: opening a pipe that nobody writes to would wait before its kind is known.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(CREDENTIAL_LIMIT + 1)
    finally:
        os.close(descriptor)


def _parse_reference(reference: str) -> tuple[str, str]:
    if reference == "":
        return "", ""
    scheme, _, name = reference.partition(":")
    if scheme == "env" and name.isidentifier() and name.isascii():
        _check_not_ours(name in django_settings.PRIVATE_VARIABLES)
        return scheme, name
    if scheme == "file" and name.startswith("/") and "\x00" not in name:
        path = Path(os.path.realpath(name))
        private = [Path(os.path.realpath(each)) for each in django_settings.PRIVATE_PATHS]
        _check_not_ours(any(path.is_relative_to(each) for each in private))
        return scheme, name
    # The text is not repeated: somebody may have typed the secret itself.
    raise Invalid("A credential reference is empty, env:NAME or file:/absolute/path.")


def _check_not_ours(ours: bool) -> None:
    if ours:
        raise Invalid(
            "That is a secret of the console itself, which no key store gets to see.",
            field="credentials",
        )


def _made(
    store_id: uuid.UUID, kind: str, settings: Mapping[str, Any], credentials_reference: str
) -> Backend:
    cls = backend_class(kind)
    cls.check_settings(settings)
    backend = cls(store_id, settings, resolve_credential(credentials_reference))
    workers = KINDS[kind].workers
    if not workers:
        return backend
    return Bounded(backend, workers=workers, timeout=django_settings.BACKEND_TIMEOUT_SECONDS)


def digest(kind: str, settings: Mapping[str, Any], reference: str) -> str:
    """Return what tells one configuration of a key store from another."""
    written = json.dumps([kind, dict(settings), reference], sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def _pop(store_id: uuid.UUID) -> list[Backend]:
    # Entries of a parent process are dropped without closing: their sessions are the parent's.
    own = os.getpid()
    gone = [key for key in _backends if key[1] == store_id or key[0] != own]
    popped = [(key, _backends.pop(key)) for key in gone]
    return [backend for key, backend in popped if key[0] == own]


def _close(backends: list[Backend]) -> None:
    for backend in backends:
        backend.close()
