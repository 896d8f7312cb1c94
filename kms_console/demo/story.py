"""How the company came to be: the steps, in the order that they need.

Everything goes through the functions that every door calls, by callers whose entries and votes say
that they are the worked example's; times are real. A step whose result is there already is left out.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from keys import administration, clock, operations, queries
from keys import queries_ceremonies as ceremonies
from keys.approvals import LIVE
from keys.callers import Caller, Door, Kind, Method, Role
from keys.errors import CannotDecrypt, Conflict, KeyServiceError, NotFound, PendingApproval
from keys.models import Approval, Key, Principal
from keys.models.approval import ApprovalState
from keys.secret import Secret
from keys.services import operator
from kms_console import identity, presets
from kms_console.demo.accounts import Accounts
from kms_console.demo.company import APPLICATIONS, COMPANY, KEYS, PEOPLE, ApplicationPlan, KeyPlan

EXECUTION_SECONDS = 60.0


def load() -> tuple[Accounts | None, bool]:
    """Load what is not there yet; return the accounts and whether anything was to be done.

    The accounts are None where the example is loaded and their file is gone. Raises Conflict where
    the console was set up otherwise, and what the steps raise.
    """
    accounts = Accounts.read()
    if queries.is_set_up():
        if not any(person.demo for person in _principals(Kind.PERSON).values()):
            raise Conflict(
                "The console was set up otherwise, and the worked example wants a new data folder: "
                "start without --demo, or choose another folder."
            )
        if accounts is None or accounts.loaded_at:
            return accounts, False
    else:
        # A file without its house is left from a database that is gone: nothing in it opens anything.
        accounts = accounts if accounts and not accounts.loaded_at else Accounts.new()
        _set_up(accounts)
    _Story(accounts).tell()
    accounts.loaded_at = clock.now().isoformat(timespec="seconds")
    accounts.keep()
    return accounts, True


def _set_up(accounts: Accounts) -> None:
    people = [
        {
            "name": person.name,
            "username": person.username,
            "role": person.role,
            "password": accounts.passwords[person.username],
        }
        for person in PEOPLE
    ]
    administration.set_up(
        _operator(), people=Secret(json.dumps(people).encode()), reason=f"worked example: {COMPANY}"
    )


class _Story:
    """One telling: who acts, and what is there already."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        people = _principals(Kind.PERSON)
        officers = [_person(people[person.name]) for person in PEOPLE if person.role == "officer"]
        self.olga, self.otto, self.oona = officers
        self.officers = officers

    def tell(self) -> None:
        """Do every step that was not done."""
        self._policies()
        self._keys()
        for plan in APPLICATIONS:
            self._application(plan)
        self._lifecycle()
        self._uses()
        self._inbox()

    # --- policies and keys

    def _policies(self) -> None:
        if not queries.list_key_stores(_operator()):
            administration.create_key_store(_operator(), **presets.FIRST_KEY_STORE)
        there = {row.name for row in queries.list_classifications(_operator())}
        for classification in presets.CLASSIFICATIONS:
            if classification["name"] not in there:
                administration.create_classification(_operator(), **classification)
        # Before anything in it is due: the real sweep may run at this very moment.
        if not queries.find_classification(self.olga, "confidential").rotation_paused:
            administration.pause_rotation(
                self.olga,
                "confidential",
                reason="The payroll system moves until the end of the year",
            )

    def _keys(self) -> None:
        there = _keys()
        for plan in KEYS:
            if plan.alias not in there:
                self._create(plan)
            if plan.days_old and _keys()[plan.alias].state == "pending_import":
                self._import(plan)

    def _create(self, plan: KeyPlan) -> None:
        administration.create_key(
            self.olga,
            plan.classification,
            name=plan.name,
            alias=plan.alias,
            spec=plan.spec,
            algorithm=plan.algorithm,
            publish_days=plan.publish_days,
            owner=plan.owner,
            description=plan.description,
            labels=plan.labels,
            origin="imported" if plan.days_old else "generated",
        )

    def _import(self, plan: KeyPlan) -> None:
        # Earlier votes were for material that went with the process that made it.
        for stale in self._requests(_keys()[plan.alias], "import_key"):
            administration.withdraw_request(
                self.olga, str(stale.id), reason="Its material was not kept"
            )
        material = Secret(os.urandom(32))
        origin = clock.now() - timedelta(days=plan.days_old)

        def bring() -> Any:
            return administration.import_key(
                self.olga,
                plan.alias,
                material=material,
                originated_at=origin.isoformat(timespec="seconds"),
                reason=plan.description,
            )

        self._with_votes(bring)

    # --- applications

    def _application(self, plan: ApplicationPlan) -> None:
        row = _principals(Kind.APPLICATION).get(plan.name)
        if row is None:
            row = administration.create_application(
                _operator(), name=plan.name, description=plan.description
            )
        held = {
            grant.key.alias: grant
            for grant in queries.list_grants(self.olga, principal=row).rows
            if grant.key is not None
        }
        for alias, allowed in plan.grants.items():
            if alias not in held:
                self._grant(row, alias, allowed)
        if plan.name not in self.accounts.tokens:
            # One that was issued and never kept opens nothing for anybody: take it back.
            for lost in queries.list_credentials(_operator(), row):
                if lost.revoked_at is None:
                    administration.revoke_credential(
                        _operator(), str(lost.id), reason="its token was not kept"
                    )
            issued = administration.issue_credential(_operator(), str(row.id))
            self.accounts.tokens[plan.name] = issued.token.reveal().decode()
            self.accounts.keep()

    def _grant(self, row: Principal, alias: str, allowed: list[str]) -> None:
        self._with_votes(
            lambda: administration.create_grant(
                self.olga,
                str(row.id),
                key=alias,
                operations=allowed,
                reason=f"{row.name} works with this key",
            )
        )

    # --- keys in every state

    def _lifecycle(self) -> None:
        keys = _keys()
        contracts = keys["confidential-contracts"]
        if len(contracts.versions.all()) == 1:
            administration.rotate_key(
                self.olga, contracts.alias, reason="A copy of version 1 may have left the company"
            )
        if not _states(contracts.alias, "compromised"):
            administration.transition_version(
                self.olga,
                contracts.alias,
                number=1,
                to="compromised",
                reason="Found in a supplier's mail",
            )
        if not _states("confidential-hr", "suspended"):
            administration.transition_version(
                self.otto,
                "confidential-hr",
                number=1,
                to="suspended",
                reason="Until the incident in the HR system is understood",
            )
        if keys["internal-wiki"].state == "enabled":
            administration.disable_key(
                self.oona, "internal-wiki", reason="The wiki is read-only while it moves"
            )
        if keys["public-newsletter"].state == "enabled":
            administration.schedule_destruction(
                self.olga, "public-newsletter", reason="The newsletter has ended"
            )
        imaging = keys["patient-imaging"]
        if len(imaging.versions.all()) == 1:
            self._with_votes(
                lambda: administration.rotate_key(
                    self.oona, imaging.alias, reason="A new archive begins with a new version"
                )
            )

    # --- what the applications did

    def _uses(self) -> None:
        records, billing, documents = (self._as(plan.name) for plan in APPLICATIONS)
        patient = {"patient": "MH-10442"}
        for field in ("diagnosis", "medication", "allergies"):
            context = patient | {"field": field}
            sealed = operations.encrypt(records, "patient-records", field.encode(), context=context)
            operations.decrypt(records, "patient-records", sealed.ciphertext, context=context)
        operations.generate_data_key(records, "patient-records", context=patient)
        other = {"patient": "MH-20817"}
        with suppress(CannotDecrypt):
            # A record that was moved to another patient does not open.
            operations.decrypt(records, "patient-records", sealed.ciphertext, context=other)
        with suppress(NotFound):
            # It may use its own key and no other, and does not learn that there are others.
            operations.encrypt(records, "confidential-finance", b"an invoice")
        invoice = operations.encrypt(billing, "confidential-finance", b"2026-0117: 412.50 EUR")
        operations.decrypt(billing, "confidential-finance", invoice.ciphertext)
        tag = operations.mac(billing, "internal-api", b"GET /invoices/2026-0117")
        operations.verify_mac(billing, "internal-api", b"GET /invoices/2026-0117", tag.mac)
        with suppress(NotFound):
            operations.decrypt(billing, "patient-records", sealed.ciphertext, context=context)
        report = b"Annual report"
        signed = operations.sign(documents, "public-documents", report)
        operations.verify(documents, "public-documents", report, signed.signature)
        operations.verify(documents, "public-documents", report + b"!", signed.signature)
        operations.generate_data_key(documents, "internal-files", context={"share": "projects"})
        operations.generate_data_key(documents, "internal-backups", context={"tape": "0117"})

    def _as(self, application: str) -> Caller:
        """Return an application as its token proves it, acting for the worked example."""
        caller = identity.bearer(
            f"Bearer {self.accounts.tokens[application]}",
            source="127.0.0.1",
            request_id=str(uuid.uuid4()),
            door=Door.COMMAND,
        )
        return replace(caller, demo=True)

    # --- what waits for officers

    def _inbox(self) -> None:
        """Leave one request that needs one more vote, one that needs two, and a ceremony half done."""
        self._ceremony("patient-laboratory")
        prescriptions = _keys()["patient-prescriptions"]
        if len(prescriptions.versions.all()) == 1:
            if not self._requests(prescriptions, "rotate_key"):
                with suppress(PendingApproval):
                    administration.rotate_key(
                        self.oona, prescriptions.alias, reason="The pharmacy changes its system"
                    )
            for request in self._requests(prescriptions, "rotate_key"):
                self._vote(self.otto, request, "The pharmacy knows about it")
        billing = _principals(Kind.APPLICATION)["billing"]
        wanted = [
            request
            for request in self._requests(None, "create_grant")
            if request.subject_id == str(billing.id)
        ]
        if not wanted:
            with suppress(PendingApproval):
                administration.create_grant(
                    self.olga,
                    str(billing.id),
                    key="patient-records",
                    operations=["decrypt"],
                    context={"field": "insurance"},
                    reason="Invoices show the patient's insurance number",
                )

    def _ceremony(self, alias: str) -> None:
        """Begin to bring an overdue key's next material: one of two components is in."""
        key = _keys()[alias]
        if ceremonies.ceremonies(self.olga, key):
            return
        opened = administration.open_ceremony(
            self.olga,
            alias,
            custodians=[self.olga.name, self.otto.name],
            split=True,
            place="Laboratory, room 2",
            reason="The laboratory's key is overdue",
        )
        component = Secret(os.urandom(32))
        administration.enter_component(self.otto, str(opened.id), component=component)

    def _requests(self, key: Key | None, action: str) -> list[Approval]:
        """Return the requests for this that are still open or approved."""
        found = queries.list_approvals(self.olga, key=key).rows
        return [row for row in found if row.action == action and row.state in LIVE]

    # --- votes

    def _with_votes(self, wish: Callable[[], Any]) -> None:
        """Do what is wished; where officers must agree, let the two who did not ask agree first."""
        try:
            wish()
            return
        except PendingApproval as pending:
            reference = str(pending.extra["approval"])
        for officer in self.officers:
            request = queries.find_approval(officer, reference)
            if request.state == ApprovalState.OPEN and request.requester_id != officer.principal_id:
                self._vote(officer, request, "Agreed in the worked example")
        if request.action == "import_key":
            wish()
            return
        administration.execute(reference)
        self._wait_for(reference)

    def _vote(self, officer: Caller, request: Approval, comment: str) -> None:
        if any(vote.officer_id == officer.principal_id for vote in request.votes.all()):
            return
        administration.vote(
            officer, str(request.id), approve=True, digest=request.digest, comment=comment
        )

    def _wait_for(self, reference: str) -> None:
        """Return when an approved request was carried out; a running worker may have taken it first."""
        deadline = time.monotonic() + EXECUTION_SECONDS
        while True:
            request = queries.find_approval(self.olga, reference)
            if request.state == ApprovalState.EXECUTED:
                return
            if request.state != ApprovalState.APPROVED or time.monotonic() > deadline:
                raise KeyServiceError(
                    f"A request of the worked example was not carried out: {request.action} "
                    f"{request.subject_name}: {request.state} {request.state_reason}"
                )
            time.sleep(0.2)


def _operator() -> Caller:
    return replace(operator(), demo=True)


def _person(row: Principal) -> Caller:
    """Return a person of the example as a command acts for them: nobody signed in."""
    return Caller(
        row.id, Kind.PERSON, row.name, Role(row.role), Method.COMMAND, Door.COMMAND, demo=True
    )


def _principals(kind: Kind) -> dict[str, Principal]:
    return {row.name: row for row in queries.list_principals(_operator(), kind, limit=1000).rows}


def _keys() -> dict[str, Key]:
    return {row.alias: row for row in queries.list_keys(_operator(), limit=1000).rows}


def _states(alias: str, state: str) -> list[int]:
    """Return the numbers of a key's versions that are in this state."""
    return [v.number for v in _keys()[alias].versions.all() if v.state == state]
