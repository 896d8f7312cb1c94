"""Erasing a person's data (GDPR, article 17) without touching an entry or a proof."""

from __future__ import annotations

from auditlog.models import LogEntry

from audit import exports, personal, retention
from audit.events import Subject
from keys import approvals, gate, names, targets
from keys.actions import Action
from keys.administration.retention import HOLDS
from keys.callers import Kind
from keys.errors import Conflict
from keys.gate.changes import Change
from keys.models import Approval, Principal


@gate.change(Action.ERASE_PERSON, on=targets.principal)
def erase_person(change: Change[Principal], *, reason: str = "") -> Principal:
    """Forget who a person with a closed account was: the name, the user name, the addresses.

    Entries keep their commitments, which tell nothing any more; ids stay, so that it still shows
    which entries are of one person. Not while a legal hold is in force. Free text that people wrote
    as a reason is not searched. Raises Conflict. There is no way back.
    """
    row = change.row
    # A hold that is placed meanwhile comes first.
    change.rest_on(*HOLDS)
    if row.kind != Kind.PERSON:
        raise Conflict(
            "Only people have personal data; this account is an application's or a service's."
        )
    if row.active:
        raise Conflict("Close the account first.")
    if held := retention.active_holds():
        raise Conflict(
            f"A legal hold is in force: {held[0].name}. Nothing is erased until its release."
        )
    known = {row.name, *([row.user.get_username()] if row.user else [])}
    erased = personal.erase(str(row.id), known)
    exports.forget_person(str(row.id), known)
    _forget_sign_in(row)
    _forget_requests(row, known)
    LogEntry.objects.filter(
        content_type__app_label="keys", content_type__model="principal", object_pk=str(row.id)
    ).update(object_repr=f"principal {row.id}", changes=None, changes_text="")
    row.name = f"Erased person {str(row.id)[:8]}"
    row.name_folded = names.folded(row.name)
    row.save(update_fields=["name", "name_folded"])
    change.about = Subject("principal", str(row.id))
    change.facts["values_erased"] = erased
    change.touch("principal", row.id)
    return row


def _forget_sign_in(row: Principal) -> None:
    user = row.user
    if user is None:
        return
    user.username, user.email = f"erased-{row.id}", ""
    user.first_name = user.last_name = ""
    user.set_unusable_password()
    user.save()


def _forget_requests(row: Principal, known: set[str]) -> None:
    """Empty the closed requests that named the person; their digests and votes stay in the log."""
    closed = Approval.objects.exclude(state__in=approvals.LIVE)
    about = closed.filter(subject_kind="principal", subject_id=str(row.id))
    appointed = closed.filter(action=Action.APPOINT_OFFICER, parameters__username__in=sorted(known))
    for rows in (about, appointed):
        rows.update(subject_name="", parameters={}, request=b"")
