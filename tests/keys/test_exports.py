"""Taking material out: exportable keys only, always by votes, wrapped to the recipient that was voted on."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from audit.models import Entry
from keys import administration
from keys import stores as places
from keys.administration import Exported
from keys.algorithms import SPECS
from keys.backends import materials
from keys.errors import Conflict, Denied, Invalid, NotFound, PendingApproval, StateForbids
from keys.models import Approval, Classification, Key
from keys.secret import Secret
from keys.states import VersionState as S
from tests.house import House
from tests.keys.customer import RSA_AES, RSA_OAEP, unwrap, wrap_to

DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="module")
def recipient() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def der(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(DER, SPKI)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.PEM, SPKI).decode()


@pytest.fixture
def taken(house: House) -> Key:
    """An exportable key under votes."""
    administration.create_classification(
        house.ada,
        name="movable",
        title="Movable",
        allowed_specs=sorted(SPECS),
        key_stores=["software"],
        quorum_m=2,
        quorum_n=3,
        allows_export=True,
    )
    return house.key("movable", alias="taken", exportable=True)


def export(house: House, key: Key, public_key: str, **more: Any) -> Exported:
    """Ask, vote, ask again."""
    request = house.pending(
        administration.export_key, house.olga, str(key.id), public_key=public_key, **more
    )
    house.approve(str(request.id))
    return administration.export_key(house.olga, str(key.id), public_key=public_key, **more)


def material_of(key: Key, number: int = 1) -> bytes:
    version = key.versions.get(number=number)
    return places.backend_of(key).export_material(version.handle).reveal()


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("algorithm", [RSA_AES, RSA_OAEP])
def test_what_is_exported_only_the_recipient_can_open(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey, algorithm: str
) -> None:
    done = export(house, taken, pem(recipient), algorithm=algorithm)
    material = unwrap(recipient, done.wrapped, algorithm)
    assert material == material_of(taken)
    assert done.check_value == materials.check_value(SPECS["AES_256"], Secret(material))
    assert (done.version, done.algorithm) == (1, algorithm)
    pending, started, success = house.entries(action="export_key")
    digest = hashlib.sha256(der(recipient)).hexdigest()
    assert started["facts"]["recipient_sha256"] == success["facts"]["recipient_sha256"] == digest
    outcomes = [entry["outcome"] for entry in (pending, started, success)]
    assert outcomes == ["pending", "started", "success"]
    assert success["object"]["version"] == 1
    with pytest.raises(PendingApproval):  # votes serve once
        administration.export_key(
            house.olga, str(taken.id), public_key=pem(recipient), algorithm=algorithm
        )


def test_a_pair_leaves_as_pkcs8(house: House, taken: Key, recipient: rsa.RSAPrivateKey) -> None:
    key = house.key("movable", "ECC_NIST_P256", exportable=True)
    written = base64.b64encode(der(recipient)).decode()
    with pytest.raises(Invalid, match="too long"):
        administration.export_key(house.olga, str(key.id), public_key=written, algorithm=RSA_OAEP)
    done = export(house, key, written)
    private = serialization.load_der_private_key(unwrap(recipient, done.wrapped), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    public = key.versions.get().public_key
    assert private.public_key().public_bytes(DER, SPKI) == bytes(public or b"")


def test_an_x_wing_key_can_be_the_recipient(house: House, taken: Key) -> None:
    receiver = house.key("internal", "X_WING", usage="WRAP_UNWRAP")
    version = receiver.versions.get()
    algorithm = "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM"
    public_key = base64.b64encode(bytes(version.public_key or b"")).decode()
    done = export(house, taken, public_key, algorithm=algorithm)
    opened = places.backend_of(receiver).unwrap(version.handle, algorithm, done.wrapped)
    assert opened == material_of(taken)


def test_an_exported_key_can_be_imported_elsewhere(house: House, taken: Key) -> None:
    """Out under the wrapping key of another house's import parameters: nobody in between can read it."""
    elsewhere = house.key("internal", origin="imported")
    parameters = administration.import_parameters(house.olga, str(elsewhere.id))
    done = export(house, taken, base64.b64encode(parameters.public_key).decode())
    administration.import_key(
        house.olga,
        str(elsewhere.id),
        wrapped=Secret(done.wrapped),
        token=parameters.token,
        algorithm=done.algorithm,
        check_value=done.check_value,
    )
    assert elsewhere.versions.get().check_value == taken.versions.get().check_value


def test_however_the_public_key_is_written_it_is_the_same_request(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    request = house.pending(
        administration.export_key, house.olga, "taken", public_key=pem(recipient)
    )
    written = base64.encodebytes(der(recipient)).decode()
    with pytest.raises(PendingApproval) as again:
        administration.export_key(house.olga, "taken", public_key=written, number=1)
    assert again.value.extra["approval"] == str(request.id)
    house.approve(str(request.id))
    other = rsa.generate_private_key(65537, 3072)
    with pytest.raises(PendingApproval):
        administration.export_key(house.olga, "taken", public_key=pem(other))
    with pytest.raises(Conflict):  # Olga asked for this already, and only she gets it
        administration.export_key(house.otto, "taken", public_key=pem(recipient))
    done = administration.export_key(house.olga, "taken", public_key=written, number=1)
    assert unwrap(recipient, done.wrapped) == material_of(taken)


def test_an_export_without_votes_is_refused_and_says_what_to_do(
    house: House, recipient: rsa.RSAPrivateKey
) -> None:
    administration.update_classification(house.ada, "internal", allows_export=True)
    key = house.key(exportable=True)
    with pytest.raises(StateForbids, match="give the classification a quorum"):
        administration.export_key(house.olga, str(key.id), public_key=pem(recipient))
    assert house.last_entry(action="export_key")["outcome"] == "failed"
    assert not Approval.objects.filter(action="export_key").exists()


def test_only_what_was_created_exportable_leaves(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    stays = house.key("movable")
    with pytest.raises(StateForbids, match="not created exportable"):
        administration.export_key(house.olga, str(stays.id), public_key=pem(recipient))
    # Not even where somebody edits the row: the material itself is sealed as not exportable.
    Key.objects.filter(pk=stays.pk).update(exportable=True)
    with pytest.raises(StateForbids):
        export(house, stays, pem(recipient))
    entry = house.last_entry(action="export_key", object_id=str(stays.id))
    assert (entry["outcome"], entry["reason"]) == ("failed", "state_forbids")
    with pytest.raises(Invalid, match="no exportable keys"):
        house.key("internal", exportable=True)


def test_the_policy_is_asked_again_when_it_leaves(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    request = house.pending(
        administration.export_key, house.olga, "taken", public_key=pem(recipient)
    )
    house.approve(str(request.id))
    Classification.objects.filter(name="movable").update(allows_export=False)
    with pytest.raises(Conflict, match="no longer hold"):
        administration.export_key(house.olga, "taken", public_key=pem(recipient))
    with pytest.raises(StateForbids, match="no export any more"):
        administration.export_key(house.olga, "taken", public_key=pem(recipient))


@pytest.mark.parametrize("state", [S.COMPROMISED, S.DESTROYED, S.DESTROYED_COMPROMISED])
def test_what_is_compromised_or_gone_does_not_leave(
    house: House, recipient: rsa.RSAPrivateKey, state: S
) -> None:
    administration.update_classification(house.ada, "internal", allows_export=True)
    key, number = house.version_in(state, exportable=True)
    administration.update_classification(house.ada, "internal", quorum={"m": 2, "n": 3})
    with pytest.raises(StateForbids):
        administration.export_key(house.olga, str(key.id), public_key=pem(recipient), number=number)


def test_no_version_leaves_a_key_that_is_about_to_be_destroyed_or_not_there(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    with pytest.raises(NotFound):
        administration.export_key(house.olga, "taken", public_key=pem(recipient), number=7)
    request = house.pending(administration.schedule_destruction, house.olga, "taken")
    house.approve(str(request.id))
    with pytest.raises(StateForbids):
        administration.export_key(house.olga, "taken", public_key=pem(recipient))


def _weak() -> str:
    return base64.b64encode(der(rsa.generate_private_key(65537, 2048))).decode()


def _curve() -> str:
    public = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(DER, SPKI)
    return base64.b64encode(public).decode()


@pytest.mark.parametrize(
    "public_key",
    [
        "",
        "  ",
        None,
        5,
        b"bytes",
        ["x"],
        "not base64!",
        "QUJD",
        "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n",
        "MIIB" * 5000,
        "\u20ac\u0000",
        _weak,
        _curve,
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)[:30]),
)
def test_what_is_no_good_public_key_is_invalid(house: House, taken: Key, public_key: Any) -> None:
    given = public_key() if callable(public_key) else public_key
    before = len(house.entries())
    with pytest.raises(Invalid):
        administration.export_key(house.olga, "taken", public_key=given)
    assert len(house.entries()) == before + 1


def test_a_mutilated_public_key_is_invalid_at_every_byte(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    whole = der(recipient)
    for end in range(0, len(whole), 7):
        with pytest.raises(Invalid):
            administration.export_key(
                house.olga, "taken", public_key=base64.b64encode(whole[:end]).decode()
            )


@pytest.mark.parametrize(
    "wrong",
    [{"algorithm": "AES_KWP"}, {"algorithm": None}, {"number": "1"}, {"number": True}],
    ids=str,
)
def test_an_export_that_makes_no_sense_is_refused(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        administration.export_key(house.olga, "taken", public_key=pem(recipient), **wrong)


def test_only_officers_export_and_nothing_of_it_is_kept(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    for other in (house.ada, house.udo):
        with pytest.raises(Denied):
            administration.export_key(other, "taken", public_key=pem(recipient))
    with pytest.raises(NotFound):
        administration.export_key(house.billing, "taken", public_key=pem(recipient))
    done = export(house, taken, pem(recipient))
    material = material_of(taken)
    for row in Entry.objects.all():
        for secret in (material, done.wrapped[:32]):
            assert secret not in bytes(row.body) and secret.hex().encode() not in bytes(row.body)
    for path in house.database.path.parent.iterdir():
        content = path.read_bytes()
        assert material not in content and done.wrapped[:32] not in content, path.name


def test_what_was_brought_exportable_can_leave_again(
    house: House, taken: Key, recipient: rsa.RSAPrivateKey
) -> None:
    key = house.key("movable", origin="imported", exportable=True)
    parameters = administration.import_parameters(house.olga, str(key.id), spec="RSA_3072")
    arguments: dict[str, Any] = {
        "wrapped": Secret(wrap_to(parameters.public_key, bytes(range(32)))),
        "token": parameters.token,
        "algorithm": RSA_AES,
    }
    request = house.pending(administration.import_key, house.olga, str(key.id), **arguments)
    house.approve(str(request.id))
    administration.import_key(house.olga, str(key.id), **arguments)
    done = export(house, key, pem(recipient))
    assert unwrap(recipient, done.wrapped) == bytes(range(32))
    request = house.pending(administration.delete_material, house.olga, str(key.id), number=1)
    house.approve(str(request.id))
    with pytest.raises(StateForbids, match="not ready"):
        administration.export_key(house.olga, str(key.id), public_key=pem(recipient))
