"""Two officers must agree: by the console's pages, start to end."""

from __future__ import annotations

from keys import administration
from keys.models import Approval, Classification, Principal
from tests.console.conftest import signed_in_client
from tests.house import House

REASON = {"reason": "a new year"}


def test_a_rotation_waits_for_two_officers_and_is_then_carried_out(house: House) -> None:
    key = house.key("patient-health", name="Records", alias="records")
    olga, otto, oona = (signed_in_client(name) for name in ("olga", "otto", "oona"))
    answer = olga.post("/keys/records/do/rotate", REASON, follow=True)
    address = answer.redirect_chain[-1][0]
    page = answer.content.decode()
    assert "Nothing has changed yet" in page
    assert "You asked for this" in page
    assert 'value="approve"' not in page

    request = Approval.objects.get()
    seen = otto.get(address).content.decode()
    for word in (
        "A new version is made",
        "a new year",
        "0 of 2 needed",
        request.digest,
        "in 7 days",
    ):
        assert word in seen, word
    assert ">1<" in otto.get("/").content.decode().replace('<span class="unseen">', "<")
    vote = {"digest": request.digest, "vote": "approve", "comment": "looked at it"}
    assert otto.post(f"{address}/vote", {**vote, "digest": "0" * 64}).status_code == 409
    assert otto.post(f"{address}/vote", {**vote, "vote": "maybe"}).status_code == 400
    assert otto.post(f"{address}/vote", vote).status_code == 302
    assert otto.post(f"{address}/vote", vote).status_code == 409
    assert olga.post(f"{address}/vote", vote).status_code == 403
    assert "You have voted" in otto.get(address).content.decode()
    assert "looked at it" in oona.get(address).content.decode()
    last = oona.post(f"{address}/vote", vote, follow=True).content.decode()
    assert "the request is approved" in last

    administration.execute(str(request.id))
    key.refresh_from_db()
    assert [v.state for v in key.versions.order_by("number")] == ["deactivated", "active"]
    assert "Carried out" in olga.get(address).content.decode()


def test_one_rejection_ends_a_request(house: House) -> None:
    house.key("patient-health", name="Records", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="x")
    otto = signed_in_client("otto")
    form = {"digest": request.digest, "vote": "reject", "comment": "not this year"}
    page = otto.post(f"/approvals/{request.id}/vote", form, follow=True).content.decode()
    assert "Rejected" in page
    assert "not this year" in page
    request.refresh_from_db()
    assert request.state == "rejected"


def test_who_asked_can_take_a_request_back_and_nobody_else(house: House) -> None:
    house.key("patient-health", name="Records", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="x")
    olga, otto = signed_in_client("olga"), signed_in_client("otto")
    address = f"/approvals/{request.id}/withdraw"
    assert "Withdraw" not in otto.get(f"/approvals/{request.id}").content.decode()
    assert otto.post(address, REASON).status_code == 403
    assert olga.post(address, REASON).status_code == 302
    request.refresh_from_db()
    assert request.state == "withdrawn"


def test_an_administrator_or_an_auditor_sees_a_request_and_has_no_vote(house: House) -> None:
    house.key("patient-health", name="Records", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="x")
    form = {"digest": request.digest, "vote": "approve"}
    for name in ("ada", "udo"):
        client = signed_in_client(name)
        assert 'value="approve"' not in client.get(f"/approvals/{request.id}").content.decode()
        assert client.post(f"/approvals/{request.id}/vote", form).status_code == 403


def test_a_new_officer_is_voted_on_and_the_password_is_shown_once(house: House) -> None:
    ada = signed_in_client("ada")
    form = {"name": "Orla", "username": "orla", "reason": "more hands"}
    page = ada.post("/people/-/officer", form, follow=True).content.decode()
    assert "Nothing has changed yet" in page
    request = Approval.objects.get(action="appoint_officer")
    house.approve(str(request.id), by=[house.olga, house.otto], execute=False)
    assert "Appoint now" in ada.get(f"/approvals/{request.id}").content.decode()
    again = ada.get(f"/people/-/officer?request={request.id}").content.decode()
    assert 'value="orla"' in again
    shown = ada.post("/people/-/officer", form)
    assert "no-store" in shown["Cache-Control"]
    password = shown.content.decode().split('id="secret" tabindex="0">')[1].split("<")[0]
    orla = Principal.objects.get(name="Orla")
    assert orla.role == "officer"
    assert orla.user.check_password(password)
    assert password not in str(house.entries())


def test_an_auditor_is_added_without_a_vote_and_can_sign_in(house: House) -> None:
    ada = signed_in_client("ada")
    form = {"name": "Una", "username": "una", "role": "auditor"}
    shown = ada.post("/people/-/new", form).content.decode()
    password = shown.split('id="secret" tabindex="0">')[1].split("<")[0]
    answer = ada.__class__().post("/sign-in", {"username": "una", "password": password})
    assert answer.status_code == 302


def test_a_policy_changes_only_in_what_was_edited(house: House) -> None:
    ada = signed_in_client("ada")
    row = Classification.objects.get(name="patient-health")
    form = {
        "title": row.title, "description": row.description, "allowed_specs": row.allowed_specs,
        "key_stores": ["software"], "minimum_protection": "software", "rotation_days": "60",
        "originator_days": row.originator_days, "recipient_days": row.recipient_days,
        "destruction_days": row.destruction_days, "quorum_m": 2, "quorum_n": 3,
        "reason": "the regulator asks",
    }  # fmt: skip
    answer = ada.post("/classifications/patient-health/edit", form)
    assert answer["Location"].startswith("/approvals/")
    request = Approval.objects.get(action="update_classification")
    wanted = {name: value for name, value in request.parameters.items() if value is not None}
    assert wanted == {"rotation_days": 60}
    house.approve(str(request.id), by=[house.olga, house.otto])
    row.refresh_from_db()
    assert row.rotation_days == 60
    form["rotation_days"] = "60"
    again = ada.post("/classifications/patient-health/edit", form, follow=True).content.decode()
    assert "Nothing was changed" in again


def test_rotation_is_paused_with_a_reason_and_resumed(house: House) -> None:
    olga = signed_in_client("olga")
    assert olga.post("/classifications/internal/pause", {}).status_code == 400
    assert olga.post("/classifications/internal/pause", REASON).status_code == 302
    assert "Rotation is paused for Internal" in olga.get("/").content.decode()
    assert olga.post("/classifications/internal/resume", REASON).status_code == 302
    assert "Rotation is paused" not in olga.get("/").content.decode()


def test_with_too_few_officers_the_console_says_why_nothing_moves(house: House) -> None:
    for name in ("Oona", "Otto"):
        row = Principal.objects.get(name=name)
        row.active = False
        row.save()
    olga = signed_in_client("olga")
    for address in ("/", "/approvals", "/people"):
        assert "1 of the 3 officers" in olga.get(address).content.decode(), address


def test_a_classification_and_a_key_store_are_made_and_a_store_is_switched_off(
    house: House,
) -> None:
    ada = signed_in_client("ada")
    form = {
        "title": "Secret", "name": "secret", "allowed_specs": ["AES_256"],
        "key_stores": ["software"], "minimum_protection": "software", "rotation_days": 30,
        "originator_days": 60, "recipient_days": 90, "destruction_days": 7,
    }  # fmt: skip
    assert ada.post("/classifications/-/new", {**form, "originator_days": 3}).status_code == 400
    assert ada.post("/classifications/-/new", form)["Location"] == "/classifications/secret"
    store = {"title": "Second", "name": "second", **REASON}
    assert ada.post("/key-stores/-/new", store).status_code == 400
    assert ada.post("/key-stores/-/new?kind=software", store).status_code == 302
    assert ada.post("/key-stores/second/off", REASON).status_code == 302
    assert "Switched off" in ada.get("/key-stores").content.decode()
    assert ada.post("/key-stores/second/on", REASON).status_code == 302
