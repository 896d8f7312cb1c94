"""A key's life by the console's forms."""

from __future__ import annotations

import pytest
from django.test import Client

from keys.models import Grant, Key
from keys.states import VERSION_EDGES, VersionState
from kms_console.web import verbs
from tests.console.conftest import signed_in_client
from tests.house import House

REASON = {"reason": "the plan says so"}


NEW = "/keys/-/new?classification=internal&spec=AES_256"
FORM = {"algorithm": "XAES_256_GCM", "key_store": "software", "origin": "generated"}


def create(client: Client, **more: object) -> Key:
    answer = client.post(NEW, {"name": "Orders 2027", **FORM, **more})
    assert answer.status_code == 302, answer.content.decode()
    return Key.objects.get(alias=answer["Location"].rpartition("/")[2])


def test_an_officer_creates_a_key_in_a_classification(house: House, olga: Client) -> None:
    chooser = olga.get("/keys/-/new").content.decode()
    assert "Patient health" in chooser
    key = create(olga, owner="Sales", labels="team=sales\nregion = north", rotation_days="30")
    assert (key.alias, key.state, key.owner) == ("orders-2027", "enabled", "Sales")
    assert key.labels == {"region": "north", "team": "sales"}
    page = olga.get(f"/keys/{key.alias}").content.decode()
    for word in (
        "Orders 2027", "AES-256", "Customer-managed", "Generated in the key store", "Enabled",
        "Primary", "team=sales", "30 days", "curl", "/api/v1/keys/orders-2027/encrypt",
    ):  # fmt: skip
        assert word in page, word


def test_a_taken_alias_is_told_at_its_field(house: House, olga: Client) -> None:
    answer = olga.post(NEW, {"name": "Invoices", **FORM})
    assert answer.status_code == 409
    assert "There is a key invoices already" in answer.content.decode()


def test_a_key_is_rotated_disabled_enabled_and_saved_from_destruction(
    house: House, olga: Client
) -> None:
    key = create(olga)
    for verb, state in (
        ("rotate", "enabled"),
        ("disable", "disabled"),
        ("enable", "enabled"),
        ("destroy", "pending_destruction"),
        ("cancel-destruction", "disabled"),
    ):
        assert verb in olga.get(f"/keys/{key.alias}").content.decode(), verb
        assert olga.post(f"/keys/{key.alias}/do/{verb}", {}).status_code == 400, verb
        assert olga.post(f"/keys/{key.alias}/do/{verb}", REASON).status_code == 302, verb
        key.refresh_from_db()
        assert key.state == state, verb
        told = house.last_entry(action=_action(verb), actor_kind="person")
        assert told["facts"]["reason"] == REASON["reason"]
    assert [v.state for v in key.versions.order_by("number")] == ["deactivated", "active"]


def _action(verb: str) -> str:
    return verbs.KEY_VERBS[verb].verb.action.value


def test_every_edge_of_the_state_table_has_its_button_and_no_other(house: House) -> None:
    for state in VersionState:
        key, number = house.version_in(state)
        shown = {
            verb.name for verb in verbs.for_version(house.olga, key, house.version(key, number))
        }
        wanted = {verbs.edge_verb(state, to) for to in VERSION_EDGES[state]}
        assert shown == wanted, state
        assert verbs.for_version(house.udo, key, house.version(key, number)) == []


def test_every_button_of_a_version_does_what_it_says(house: House, olga: Client) -> None:
    for state in (VersionState.PRE_ACTIVE, VersionState.ACTIVE, VersionState.SUSPENDED,
                  VersionState.DEACTIVATED, VersionState.COMPROMISED, VersionState.DESTROYED):  # fmt: skip
        for to in VERSION_EDGES[state]:
            key, number = house.version_in(state)
            verb = verbs.edge_verb(state, to)
            answer = olga.post(f"/keys/{key.alias}/versions/{number}/do/{verb}", REASON)
            assert answer.status_code == 302, (state, to, answer.content.decode())
            version = house.version(key, number)
            if verb == "destroy":
                assert version.condition == "pending_destruction", (state, to)
                undo = f"/keys/{key.alias}/versions/{number}/do/cancel-destruction"
                assert olga.post(undo, REASON).status_code == 302
                assert house.version(key, number).condition == ""
            else:
                assert version.state == to, (state, to)


@pytest.mark.parametrize("state", list(VersionState))
def test_a_verb_that_the_state_does_not_know_is_refused_and_changes_nothing(
    house: House, olga: Client, state: VersionState
) -> None:
    """Whatever a page offered when it was opened: the table decides when the form arrives."""
    key, number = house.version_in(state)
    refused = 0
    for verb in (name for name, row in verbs.VERSION_VERBS.items() if row.to is not None):
        if verbs.target_state(verb, house.version(key, number)) in VERSION_EDGES[state]:
            continue
        answer = olga.post(f"/keys/{key.alias}/versions/{number}/do/{verb}", REASON)
        assert answer.status_code == 409, (verb, answer.status_code)
        version = house.version(key, number)
        assert (version.state, version.condition) == (state, "")
        entry = house.last_entry()
        assert (entry["door"], entry["outcome"]) == ("console", "failed")
        assert entry["reason"] == "illegal_transition"
        refused += 1
    assert refused >= 3


def test_an_application_is_registered_given_a_token_and_granted_a_key(
    house: House, ada: Client
) -> None:
    olga = signed_in_client("olga")
    answer = ada.post("/applications/-/new", {"name": "shop", "description": "sells things"})
    application = answer["Location"]
    issued = ada.post(f"{application}/credentials/new", {"source_networks": "10.0.0.0/8"})
    assert issued.status_code == 200
    assert "no-store" in issued["Cache-Control"]
    page = issued.content.decode()
    token = page.split('id="secret" tabindex="0">')[1].split("<")[0]
    assert token.startswith("kms_")
    assert token not in ada.get(application).content.decode()
    identity = application.rpartition("/")[2]
    form = {
        "application": identity,
        "key": "invoices",
        "operations": ["encrypt", "decrypt"],
        "context": "tenant=north",
        **REASON,
    }
    answer = olga.post(f"/grants/-/new?application={identity}", form)
    assert answer.status_code == 302, answer.content.decode()
    grant = Grant.objects.get(principal_id=identity)
    assert (grant.operations, grant.context) == (["decrypt", "encrypt"], {"tenant": "north"})
    shown = olga.get("/keys/invoices").content.decode()
    assert "shop" in shown
    assert "tenant=north" in shown
    assert olga.post(f"/grants/{grant.id}/revoke", REASON).status_code == 302
    assert "Revoked" in ada.get(application).content.decode()
    assert ada.post(f"{application}/close", REASON).status_code == 302
    assert "Closed" in ada.get(application).content.decode()


def test_search_and_filters_narrow_the_list_and_pages_go_on_where_they_ended(
    house: House, olga: Client
) -> None:
    for number in range(55):
        house.key(name=f"Series {number:02}")
    page = olga.get("/keys?text=series").content.decode()
    assert page.count('class="row"') == 50
    assert "Next page" in page
    following = olga.get("/keys?text=series&after=series-49").content.decode()
    assert following.count('class="row"') == 5
    assert "First page" in following
    assert "Next page" not in following
    assert "Invoices" not in page
    assert "Invoices" in olga.get("/keys?classification=internal").content.decode()
    none = olga.get("/keys?condition=overdue").content.decode()
    assert "No key is like that" in none
    house.let_days_pass(400)
    assert "Overdue" in olga.get("/keys?condition=overdue").content.decode()
