"""Start the server: `python -m tests.peers.azure_server FOLDER`.

Reads tenant, client and client secret, one a line, from standard input; makes a certificate
authority, writes its certificate to FOLDER/ca.pem, and prints one line of JSON with the directory's
address. It ends when standard input does.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.peers.azure_server.web import Directory

AUTHORITY = "tests.peers.azure_server"


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(named[0])
        .issuer_name(named[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
    )


def authority(folder: Path) -> ssl.SSLContext:
    """Make an authority and a certificate of it for 127.0.0.1; return what a server needs."""
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = (
        certificate(AUTHORITY, root, AUTHORITY, root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(*(i == 5 for i in range(9))), critical=True)
        .sign(root, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    leaf = (
        certificate("127.0.0.1", key, AUTHORITY, root)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(root, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + leaf.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def main() -> None:
    folder = Path(sys.argv[1])
    tenant, client, secret = (sys.stdin.readline().strip() for _ in range(3))
    directory = Directory(tenant, client, secret, authority(folder))
    print(json.dumps({"authority": directory.url}), flush=True)
    sys.stdin.read()  # until the tests end, in whatever way


if __name__ == "__main__":
    main()
