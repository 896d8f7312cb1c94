"""The whole story at servers that nobody here wrote: found, adopted, changed behind our back, decided on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
import pytest
from botocore.config import Config

from keys import administration, discovery, operations, queries_stores
from keys.errors import BackendError, Unsupported
from keys.models import Drift, Job, Key, Listing
from keys.services import operator
from tests.house import House
from tests.peers.peer import Peer


class Owner(Protocol):
    """What a key's owner does with the vendor's own tools."""

    def create(self, name: str) -> str: ...

    def rotate(self, reference: str) -> None: ...

    def destroy(self, reference: str) -> None: ...


@dataclass
class BaoOwner:
    admin: Any
    mount: str

    def create(self, name: str) -> str:
        self.admin.ask("POST", f"{self.mount}/keys/{name}", {"type": "aes256-gcm96"})
        return name

    def rotate(self, reference: str) -> None:
        self.admin.ask("POST", f"{self.mount}/keys/{reference}/rotate")

    def set(self, reference: str, **values: Any) -> None:
        self.admin.ask("POST", f"{self.mount}/keys/{reference}/config", values)

    def destroy(self, reference: str) -> None:
        self.set(reference, deletion_allowed=True)
        self.admin.ask("DELETE", f"{self.mount}/keys/{reference}")


@dataclass
class AwsOwner:
    kms: Any

    def create(self, name: str) -> str:
        # moto doesn't know the default purpose.
        tags = [{"TagKey": "team", "TagValue": "pay"}]
        made = self.kms.create_key(Description=name, KeyUsage="ENCRYPT_DECRYPT", Tags=tags)
        return str(made["KeyMetadata"]["Arn"])

    def rotate(self, reference: str) -> None:
        self.kms.rotate_key_on_demand(KeyId=key_id(reference))

    def state(self, reference: str) -> str:
        return str(self.kms.describe_key(KeyId=key_id(reference))["KeyMetadata"]["KeyState"])

    def destroy(self, reference: str) -> None:
        self.kms.schedule_key_deletion(KeyId=key_id(reference), PendingWindowInDays=7)


def key_id(arn: str) -> str:
    """Return the id of an AWS key: not all of moto's calls take an ARN."""
    return arn.rpartition("/")[2]


def connected(house: House, peer: Peer, settings: Mapping[str, Any]) -> None:
    """Configure the peer as the key store `cloud`, which the classification `cloud` allows."""
    secret = house.folder / "credential"
    secret.write_bytes(peer.credential or b"")
    administration.create_key_store(
        operator(),
        name="cloud",
        kind=peer.kind,
        settings=dict(settings),
        credentials=f"file:{secret}" if peer.credential else "",
    )
    administration.create_classification(
        operator(),
        name="cloud",
        title="Cloud",
        allowed_specs=["AES_256", "ECC_NIST_P256"],
        key_stores=["cloud"],
    )


@pytest.fixture
def bao(house: House, openbao: Peer, openbao_admin: Any) -> BaoOwner:
    settings = openbao.fresh()
    connected(house, openbao, settings)
    return BaoOwner(openbao_admin, str(settings["mount"]))


def _aws(house: House, peer: Peer) -> AwsOwner:
    settings = peer.fresh()
    connected(house, peer, settings)
    more: dict[str, Any] = {}
    if peer.credential:
        written = json.loads(peer.credential)
        more = {
            "aws_access_key_id": written["access_key_id"],
            "aws_secret_access_key": written["secret_access_key"],
        }
    kms = boto3.client(
        "kms",
        region_name=settings["region"],
        endpoint_url=settings.get("endpoint"),
        config=Config(retries={"total_max_attempts": 1}),
        **more,
    )
    return AwsOwner(kms)


@pytest.fixture
def aws(house: House, moto: Peer) -> Iterator[AwsOwner]:
    owner = _aws(house, moto)
    yield owner
    owner.kms.close()


def found() -> list[tuple[str, Any, Any]]:
    rows = Drift.objects.filter(state="open").order_by("field", "handle")
    return [(row.field, row.believed, row.observed) for row in rows]


def look(house: House, key: Key) -> list[str]:
    administration.check_drift(house.olga, str(key.id))
    return [field for field, *_ in found()]


def decide(house: House, decision: str, field: str) -> Drift:
    row = Drift.objects.get(field=field, state="open")
    result: Drift = getattr(administration, f"{decision}_drift")(house.olga, str(row.id))
    return result


def listed(house: House) -> Listing:
    return discovery.run(administration.discover_keys(house.olga, "cloud").id)


def adopted(house: House, owner: Owner, name: str) -> tuple[str, Key]:
    """Make a key with the vendor's own tools, find it, adopt it, and use it."""
    owner.create(name)
    listing = listed(house)
    assert listing.state == "done", listing.error
    ((row, ours),) = queries_stores.found_keys(house.olga, listing).rows
    assert (ours, row.view["problem"]) == (None, "")
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference=row.reference, alias=name
    )
    assert key.adopted
    assert look(house, key) == [], "what was just adopted does not differ"
    house.grant("billing", key, "encrypt", "decrypt")
    sealed = operations.encrypt(house.billing, name, b"salaries").ciphertext
    assert operations.decrypt(house.billing, name, sealed).plaintext.reveal() == b"salaries"
    ((_, ours),) = queries_stores.found_keys(house.olga, listing).rows
    assert ours == key
    return str(row.reference), key


# --- OpenBao


def test_a_key_of_openbao_from_discovery_to_its_loss(house: House, bao: BaoOwner) -> None:
    name, key = adopted(house, bao, "payroll")
    before = operations.encrypt(house.billing, "payroll", b"old").ciphertext
    # Somebody rotates it there: the console follows.
    bao.rotate(name)
    assert "version_unknown" in look(house, key)
    decide(house, "accept", "version_unknown")
    assert found() == []
    versions = [(v.number, v.state, v.primary) for v in key.versions.order_by("number")]
    assert versions == [(1, "deactivated", False), (2, "active", True)]
    assert bao.admin.key(bao.mount, name)["min_encryption_version"] == 2
    assert operations.encrypt(house.billing, "payroll", b"x").version == 2
    assert operations.decrypt(house.billing, "payroll", before).plaintext.reveal() == b"old"
    # Somebody shuts the old version out: it is put back.
    bao.set(name, min_decryption_version=2)
    assert look(house, key) == ["version_state"]
    assert decide(house, "revert", "version_state").state == "reverted"
    assert operations.decrypt(house.billing, "payroll", before).plaintext.reveal() == b"old"
    # Somebody lets it rotate by itself: accepted, and then it is no difference any more.
    bao.set(name, auto_rotate_period="720h")
    assert look(house, key) == ["rotation"]
    decide(house, "accept", "rotation")
    assert look(house, key) == []
    # Somebody destroys it: it can't come back, and is made anew.
    bao.destroy(name)
    assert look(house, key) == ["key_missing"]
    with pytest.raises(Unsupported):
        decide(house, "revert", "key_missing")
    assert decide(house, "repair", "key_missing").state == "repaired"
    assert look(house, key) == []
    assert operations.encrypt(house.billing, "payroll", b"x").version == 3


@pytest.mark.exhaustive
def test_a_rotation_by_openbao_itself_can_not_be_put_back(house: House, bao: BaoOwner) -> None:
    name, key = adopted(house, bao, "payroll")
    bao.rotate(name)
    look(house, key)
    with pytest.raises(BackendError, match="still says otherwise"):
        decide(house, "revert", "primary")
    assert "primary" in look(house, key)


@pytest.mark.exhaustive
def test_a_key_of_openbao_that_is_gone_is_destroyed_here(house: House, bao: BaoOwner) -> None:
    name, key = adopted(house, bao, "payroll")
    bao.destroy(name)
    look(house, key)
    decide(house, "accept", "key_missing")
    key.refresh_from_db()
    assert key.state == "destroyed"


@pytest.mark.exhaustive
def test_a_key_made_here_follows_and_is_destroyed_at_openbao(house: House, bao: BaoOwner) -> None:
    key = house.key("cloud", name="Ours")
    administration.rotate_key(house.olga, "ours")
    assert look(house, key) == []
    name = key.versions.get(number=1).handle.partition(":")[0]
    assert bao.admin.key(bao.mount, name)["min_encryption_version"] == 2
    administration.disable_key(house.olga, "ours")
    assert look(house, key) == []
    administration.schedule_destruction(house.olga, "ours")
    assert look(house, key) == []
    house.let_days_pass(31)
    house.run_due_jobs()
    key.refresh_from_db()
    assert key.state == "destroyed"
    assert listed(house).found == 0


@pytest.mark.exhaustive
def test_a_listing_of_openbao_that_stopped_goes_on(house: House, bao: BaoOwner) -> None:
    for number in range(discovery.PAGE + 5):
        bao.create(f"key-{number:03}")

    class Stopped(Exception):
        pass

    def stop(row: Listing) -> None:
        # As a killed process leaves it: the page is kept, the lease runs out.
        Listing.objects.filter(pk=row.pk).update(lease_until=None, claimed_by="")
        raise Stopped

    listing = administration.discover_keys(house.olga, "cloud")
    listing = discovery.run(listing.id, stop)
    assert (listing.state, listing.pages) == ("running", 1)
    listing = discovery.run(listing.id)
    assert (listing.state, listing.found) == ("done", discovery.PAGE + 5)


# --- AWS, as moto shows it


def test_a_key_of_aws_from_discovery_to_its_deletion(house: House, aws: AwsOwner) -> None:
    arn, key = adopted(house, aws, "payroll")
    view = queries_stores.store_view(house.udo, key)
    assert view is not None
    assert view.tags == {"team": "pay"}
    # Somebody disables it: it is put back.
    aws.kms.disable_key(KeyId=key_id(arn))
    assert "key_state" in look(house, key)
    assert decide(house, "revert", "key_state").state == "reverted"
    assert aws.state(arn) == "Enabled"
    # Somebody changes a tag, adds one: the first could be put back, both are accepted.
    aws.kms.tag_resource(KeyId=key_id(arn), Tags=[{"TagKey": "team", "TagValue": "other"}])
    assert look(house, key) == ["tags"]
    decide(house, "revert", "tags")
    assert look(house, key) == []
    aws.kms.tag_resource(KeyId=key_id(arn), Tags=[{"TagKey": "new", "TagValue": "1"}])
    look(house, key)
    with pytest.raises(Unsupported, match="takes no tags away"):
        decide(house, "revert", "tags")
    decide(house, "accept", "tags")
    assert found() == []
    # Somebody schedules its deletion: the console follows, then takes it back.
    aws.destroy(arn)
    assert "key_state" in look(house, key)
    decide(house, "accept", "key_state")
    key.refresh_from_db()
    assert key.state == "pending_destruction"
    assert look(house, key) == []
    administration.cancel_destruction(house.olga, "payroll")
    assert aws.state(arn) == "Disabled"
    assert look(house, key) == []
    administration.enable_key(house.olga, "payroll")
    assert aws.state(arn) == "Enabled"


@pytest.mark.exhaustive
def test_a_key_of_aws_that_is_rotated_there_is_followed(house: House, aws: AwsOwner) -> None:
    arn, key = adopted(house, aws, "payroll")
    aws.rotate(arn)
    assert "version_unknown" in look(house, key)
    decide(house, "accept", "version_unknown")
    assert look(house, key) == []
    assert operations.encrypt(house.billing, "payroll", b"x").version == 2
    used, limit = queries_stores.seen_budget(key) or (0, 0)
    assert (used, limit) == (1, 25)


@pytest.mark.exhaustive
def test_a_key_made_here_is_a_key_of_aws_that_follows(house: House, aws: AwsOwner) -> None:
    key = house.key("cloud", name="Ours")
    administration.rotate_key(house.olga, "ours")
    assert look(house, key) == []
    house.move(key, 1, "compromised", reason="a laptop was stolen")
    assert look(house, key) == [], "AWS has no word for it, and the console enforces it"
    administration.schedule_destruction(house.olga, "ours")
    assert look(house, key) == []


# --- every server


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["openbao", "moto", "ministack", "google_kms", "azure_vault"])
def test_a_key_that_was_there_before_never_differs_by_what_the_console_does(
    house: House, request: pytest.FixtureRequest, name: str
) -> None:
    peer: Peer = request.getfixturevalue(name)
    settings = peer.fresh()
    connected(house, peer, settings)
    before = peer.backend(settings)
    made = before.generate(uuid.uuid4(), "ECC_NIST_P256")
    listing = listed(house)
    assert listing.state == "done", listing.error
    rows = queries_stores.found_keys(house.olga, listing, only="new").rows
    reference = next(
        row.reference
        for row, _ in rows
        if any(version["handle"] == made.handle for version in row.view["versions"])
    )
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference=reference, alias="signer"
    )
    assert look(house, key) == [], found()
    house.grant("billing", key, "sign", "verify")
    signed = operations.sign(house.billing, "signer", b"message")
    assert before.verify(made.handle, key.algorithm, b"message", signed.signature)
    steps: list[Callable[[], object]] = [
        lambda: administration.rotate_key(house.olga, "signer"),
        lambda: house.move(key, 2, "suspended"),
        lambda: house.move(key, 2, "active"),
        lambda: administration.disable_key(house.olga, "signer"),
        lambda: administration.enable_key(house.olga, "signer"),
        lambda: house.move(key, 1, "compromised", reason="a laptop was stolen"),
        lambda: administration.schedule_destruction(house.olga, "signer"),
        lambda: administration.cancel_destruction(house.olga, "signer"),
    ]
    for number, step in enumerate(steps, 1):
        step()
        waiting = Job.objects.filter(key=key, state__in=["pending", "running"])
        assert not waiting.exclude(kind="destroy").exists(), (number, waiting[0].error)
        assert look(house, key) == [], (number, found())
    before.close()
