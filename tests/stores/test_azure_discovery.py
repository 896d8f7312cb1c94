"""What is in a vault: other people's keys, certificates' keys, deleted ones; page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from keys.backends.azure.backend import AzureBackend
from keys.backends.views import KeyView
from keys.errors import Invalid
from keys.states import KeyState, VersionState
from tests.backends.keeping import kept
from tests.peers.azure import Azure, Open


def everything(backend: AzureBackend, limit: int = 100) -> dict[str, KeyView]:
    found: dict[str, KeyView] = {}
    cursor = ""
    while True:
        page = backend.discover(cursor, limit)
        for view in page.keys:
            assert view.reference not in found
            found[view.reference] = view
        if not (cursor := page.cursor):
            return found


def test_other_peoples_keys_are_told_by_what_they_may_do(open_vault: Open) -> None:
    backend, client = open_vault()
    client.create_rsa_key("everything", size=2048, tags={"team": "billing"})
    client.create_ec_key("signs", curve="P-384")
    client.create_rsa_key("encrypts", size=2048, key_operations=["encrypt", "decrypt"])
    client.create_rsa_key("only-encrypts", size=2048, key_operations=["encrypt"])
    found = everything(backend)
    told = {name: (view.spec, view.usage, view.algorithm) for name, view in found.items()}
    assert told == {
        "everything": ("RSA_2048", "WRAP_UNWRAP", "RSAES_OAEP_SHA_256"),
        "signs": ("ECC_NIST_P384", "SIGN_VERIFY", "ECDSA_SHA_384"),
        "encrypts": ("RSA_2048", "ENCRYPT_DECRYPT", "RSAES_OAEP_SHA_256"),
        "only-encrypts": ("RSA_2048", "", ""),
    }
    assert found["everything"].tags == {"team": "billing"}
    assert found["everything"].facts["key type"] == "RSA"
    assert [name for name, view in found.items() if view.problem] == ["only-encrypts"]


def test_a_key_with_a_purpose_of_others_is_used_as_it_may_be(open_vault: Open) -> None:
    backend, client = open_vault()
    made = client.create_rsa_key("everything", size=2048)
    handle = f"everything/{made.properties.version}"
    view = backend.inspect("everything")
    assert view is not None
    assert view.versions[0].handle == handle
    wrapped = backend.wrap(handle, view.algorithm, b"a key of others ")
    assert backend.unwrap(handle, view.algorithm, wrapped) == b"a key of others "


def test_a_certificates_key_is_the_providers(open_vault: Open, azure_server: Azure) -> None:
    backend, client = open_vault()
    azure_server.change(azure_server.settings(client.vault_url), certificates=["www"])
    for view in (everything(backend)["www"], backend.inspect("www")):
        assert view is not None
        assert view.provider_managed
        assert view.rotation_days is None
    assert not view.problem


def test_a_symmetric_key_of_others_can_not_be_adopted(open_vault: Open) -> None:
    backend, client = open_vault(managed=True)
    client.create_oct_key("secret", size=256, hardware_protected=True)
    view = everything(backend)["secret"]
    assert "how long" in view.problem
    assert (view.spec, view.usage) == ("", "")


def test_deleted_keys_are_listed_with_the_date_on_which_they_go(open_vault: Open) -> None:
    backend, client = open_vault(retention=30)
    kept(backend, "ECC_NIST_P256")
    client.create_ec_key("gone")
    client.begin_delete_key("gone").wait(20)
    found = everything(backend, limit=1)
    assert len(found) == 2
    for view in (found["gone"], backend.inspect("gone")):
        assert view is not None
        assert view.state is KeyState.PENDING_DESTRUCTION
        assert view.destroy_at is not None
        left = view.destroy_at - datetime.now(UTC)
        assert timedelta(days=29) < left < timedelta(days=31)
        assert "recover" in view.problem


def test_a_disabled_key_whose_vault_shows_nothing_of_it_is_listed(open_vault: Open) -> None:
    backend, client = open_vault(hides_disabled=True)
    client.create_ec_key("off", enabled=False)
    view = everything(backend)["off"]
    assert (view.state, view.versions[0].state) == (KeyState.DISABLED, VersionState.SUSPENDED)
    assert "does not show" in view.problem


def test_a_long_listing_comes_page_by_page(open_vault: Open) -> None:
    backend, client = open_vault(page=3)
    names = [f"key-{number}" for number in range(8)]
    for name in names:
        client.create_ec_key(name)
    assert list(everything(backend)) == names
    page = backend.discover("", 2)
    assert [view.name for view in page.keys] == names[:2]
    again = backend.discover(page.cursor, 100)
    assert [view.name for view in again.keys] == names[2:5]


@pytest.mark.parametrize(
    "cursor",
    ["https://elsewhere.example/keys?$skiptoken=1", "nonsense", "secrets:", "keys:" + "x" * 5000],
)
def test_a_cursor_is_no_address(open_vault: Open, cursor: str) -> None:
    backend, _ = open_vault()
    with pytest.raises(Invalid, match="no cursor"):
        backend.discover(cursor)


@pytest.mark.parametrize("reference", ["", "no/such", "../keys", "a" * 200, "never-made"])
def test_what_is_no_name_there_is_nothing(open_vault: Open, reference: str) -> None:
    backend, _ = open_vault()
    assert backend.inspect(reference) is None
