"""Material from outside, wrapped to a key of Google's own (ImportJob) before it leaves this process."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import kms_v1

from keys.algorithms import ALGORITHMS, SPECS
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.gcp.forms import Form
from keys.backends.gcp.keyring import Keyring, moment
from keys.errors import AlreadyExists, BackendError, BackendUnavailable, Unsupported
from keys.primitives import wrapping
from keys.secret import Secret

METHOD = "RSA_OAEP_4096_SHA256_AES_256"
MODULUS_BITS = 4096
PATIENCE_SECONDS = 12.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
# A job lives for three days; one that ends within the hour is left alone.
MARGIN = timedelta(hours=1)

_State = kms_v1.ImportJob.ImportJobState
# RSA-OAEP of a fresh AES-256 key, then AES-KWP under it: the form that METHOD names.
_WRAP = ALGORITHMS["RSA_AES_KEY_WRAP_SHA_256"]


class Importing:
    """Import jobs of one key ring: one a day is made, and used again."""

    def __init__(self, keyring: Keyring) -> None:
        self._configuration = keyring.configuration
        self._call = keyring.connection.call
        self._job = ""

    def prepared(self, form: Form, material: Secret) -> tuple[Secret, str]:
        """Return what Google takes (raw bytes, or PKCS#8 DER), and the check value.

        Raises Invalid for material that doesn't fit, Unsupported where Google takes none.
        """
        spec = SPECS[form.spec]
        if not form.imports:
            raise Unsupported(f"Google Cloud KMS takes no {spec.name} material from outside.")
        if spec.asymmetric:
            pair = materials.imported_private_key(spec, material)
            public = materials.public_der(pair)
            return Secret(materials.private_der(pair)), materials.check_value_of_public_key(public)
        raw = materials.imported_secret(spec, material)
        return Secret(raw), materials.check_value_of_secret(spec, raw)

    def send(self, key: str, form: Form, raw: Secret, *, into: str = "") -> Any:
        """Import into a new version of a key, or again into one whose material is gone."""
        job, public = self._active_job()
        request: dict[str, Any] = {
            "parent": key,
            "algorithm": form.google,
            "import_job": job,
            "wrapped_key": wrapping.wrap(public, _WRAP, raw.reveal()),
        }
        if into:
            request["crypto_key_version"] = into
        return self._call("import_crypto_key_version", request)

    def _active_job(self) -> tuple[str, rsa.RSAPublicKey]:
        now = datetime.now(UTC)
        today = f"kms-console-{self._configuration.level}-{now:%Y%m%d}"
        for name in (today, f"{today}-{secrets.token_hex(8)}"):
            job = self._waited_for(self._got_or_made(name))
            expires = moment(job, "expire_time")
            if job.state == _State.ACTIVE and (expires is None or expires > now + MARGIN):
                return job.name, _wrapping_key(job)
        raise BackendUnavailable("Google Cloud KMS has no import job that can be used now.")

    def _got_or_made(self, job_id: str) -> Any:
        name = f"{self._configuration.key_ring}/importJobs/{job_id}"
        if self._job == name:
            return self._call("get_import_job", {"name": name})
        request = {
            "parent": self._configuration.key_ring,
            "import_job_id": job_id,
            "import_job": {
                "import_method": METHOD,
                "protection_level": self._configuration.level.upper(),
            },
        }
        try:
            job = self._call("create_import_job", request)
        except AlreadyExists:
            job = self._call("get_import_job", {"name": name})
        except NoMaterial:
            raise BackendError("The key ring is not there.") from None
        self._job = name
        return job

    def _waited_for(self, job: Any) -> Any:
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
        while job.state == _State.PENDING_GENERATION:
            if time.monotonic() >= deadline:
                raise BackendUnavailable("Google Cloud KMS is still making the import job's key.")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            job = self._call("get_import_job", {"name": job.name})
        return job


def _wrapping_key(job: Any) -> rsa.RSAPublicKey:
    """Return the job's public key. Raises BackendError where it isn't what was asked for."""
    try:
        key = serialization.load_pem_public_key(job.public_key.pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != MODULUS_BITS:
        raise BackendError("Google Cloud KMS sent a wrapping key of another kind.")
    return key
