"""Certificate signing requests (PKCS#10, RFC 2986), signed by the key where it is."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from keys import gate
from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS, Family
from keys.errors import BackendError, Invalid, StateForbids, Unsupported
from keys.gate import Use
from keys.operations.parts import Served, admitted, chosen_algorithm, chosen_version

SUBJECT_LIMIT = 1024
NAMES_LIMIT = 100
NAME_LIMIT = 255

_Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: dict[str, _Digest] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# RFC 1123, 2.1, and a star for the first label (RFC 6125, 6.4.3).
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
# What stands for a private key of each parameter set, as the builder looks at it.
_KINDS: dict[Family, Callable[[str], type]] = {
    Family.RSA: lambda _: rsa.RSAPrivateKey,
    Family.EC: lambda _: ec.EllipticCurvePrivateKey,
    Family.EDWARDS: lambda curve: (
        ed25519.Ed25519PrivateKey if curve == "ed25519" else ed448.Ed448PrivateKey
    ),
    Family.ML_DSA: lambda parameters: getattr(mldsa, f"MLDSA{parameters}PrivateKey"),
}
_ABLE = ", ".join(spec.name for spec in SPECS.values() if spec.family in _KINDS)


@dataclass(frozen=True, slots=True)
class CertificateRequest(Served):
    """A certificate signing request, DER and PEM."""

    request: bytes
    pem: str


@gate.use(Action.CERTIFICATE_REQUEST)
def certificate_request(
    use: Use,
    *,
    subject: str = "",
    dns_names: Sequence[str] = (),
    emails: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    uris: Sequence[str] = (),
    algorithm: str = "",
    version: int | None = None,
) -> CertificateRequest:
    """Make a certificate signing request for the primary version's public key, and sign it.

    `subject` is a distinguished name as RFC 4514 writes it (`CN=shop,O=Company`); the others go into
    the subject's alternative names. There must be a subject or one of them. Raises Invalid, and
    Unsupported for keys that X.509 requests can't be made of, naming those that they can.
    """
    key = admitted(use)
    spec = SPECS[key.spec]
    if spec.family not in _KINDS:
        raise Unsupported(f"Requests can be made for keys of: {_ABLE}.")
    name = _subject(subject)
    others = list(_alternatives(dns_names, emails, ip_addresses, uris))
    if not name.rdns and not others:
        raise Invalid("A request names a subject, or an alternative name.", field="subject")
    by, chosen = chosen_version(use, version), chosen_algorithm(key, algorithm)
    if by.public_key is None:
        raise StateForbids("The version has no public key yet.")
    backend = use.backend(by)
    signer = _signer(
        _KINDS[spec.family](spec.curve),
        load_der_public_key(by.public_key),
        lambda message: backend.sign(by.handle, chosen, message),
    )
    made = _signed(name, others, signer, chosen)
    if not made.is_signature_valid:
        raise BackendError("The key store's signature does not fit the version's public key.")
    der = made.public_bytes(Encoding.DER)
    use.evidence = der
    return CertificateRequest(
        key.id, by.number, chosen, der, made.public_bytes(Encoding.PEM).decode()
    )


def _signed(
    name: x509.Name, others: list[x509.GeneralName], signer: Any, algorithm: str
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if others:
        # RFC 5280, 4.2.1.6: critical where there is no subject beside it.
        names = x509.SubjectAlternativeName(others)
        builder = builder.add_extension(names, critical=not name.rdns)
    digest = _HASHES.get(ALGORITHMS[algorithm].digest)
    salted = algorithm.startswith("RSASSA_PSS")
    if digest is not None and salted:
        pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        return builder.sign(signer, digest, rsa_padding=pss)
    return builder.sign(signer, digest)


def _signer(kind: Any, public: Any, sign: Callable[[bytes], bytes]) -> Any:
    """Return what the builder takes for a private key: it signs where the key is, and holds nothing."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("The private key is in its key store.")

    members: dict[str, Any] = dict.fromkeys(kind.__abstractmethods__, refuse)
    members["public_key"] = lambda _: public
    members["sign"] = lambda _, message, *how: sign(bytes(message))
    return type("KeyInItsStore", (kind,), members)()


def _subject(text: object) -> x509.Name:
    _printable(text, "subject", SUBJECT_LIMIT)
    try:
        name = x509.Name.from_rfc4514_string(str(text))
    except (ValueError, TypeError, LookupError):
        raise Invalid(
            "subject is not a distinguished name (RFC 4514), such as CN=shop,O=Company,C=AT.",
            field="subject",
        ) from None
    for attribute in name:  # RFC 4514 can write anything as \0a or as #0401
        value = attribute.value
        _printable(value if isinstance(value, str) else None, "subject", SUBJECT_LIMIT)
    return name


def _alternatives(
    dns_names: object, emails: object, ip_addresses: object, uris: object
) -> Iterator[x509.GeneralName]:
    """Yield the alternative names. Raises Invalid, naming the one that is wrong."""
    for name in _listed(dns_names, "dns_names"):
        if not _DNS_NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no host name in ASCII.", field="dns_names")
        yield x509.DNSName(name)
    for name in _listed(emails, "emails"):
        local, _, host = name.rpartition("@")
        if not local or not _DNS_NAME.fullmatch(host) or not name.isascii() or " " in name:
            raise Invalid(f"{name!r} is no e-mail address in ASCII.", field="emails")
        try:
            yield x509.RFC822Name(name)
        except ValueError:
            raise Invalid(f"{name!r} is no e-mail address.", field="emails") from None
    for name in _listed(ip_addresses, "ip_addresses"):
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            raise Invalid(f"{name!r} is no IP address.", field="ip_addresses") from None
        yield x509.IPAddress(address)
    for name in _listed(uris, "uris"):
        if not _URI.fullmatch(name):
            raise Invalid(f"{name!r} is no absolute URI in ASCII.", field="uris")
        yield x509.UniformResourceIdentifier(name)


def _listed(names: object, field: str) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise Invalid(f"{field} must be a list.", field=field)
    if len(names) > NAMES_LIMIT:
        raise Invalid(f"{field} has at most {NAMES_LIMIT} names.", field=field)
    return [_printable(name, field, NAME_LIMIT) for name in names]


def _printable(text: object, field: str, limit: int) -> str:
    if not isinstance(text, str) or len(text) > limit or not (text.isprintable() or not text):
        raise Invalid(f"{field}: at most {limit} printable characters.", field=field)
    return text
