"""Requests that wait for officers: the inbox, a request's page, voting, withdrawing."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from keys import administration as a
from keys import clock, queries, queries_stores
from keys.actions import Action
from keys.approvals import shortage
from keys.callers import Caller, Kind
from keys.models import Approval, Drift, Key
from keys.models.approval import ApprovalState
from kms_console.web import differences, exports, facts, settling, watching, wording
from kms_console.web.doors import confirm, may, page
from kms_console.web.forms import HouseForm
from kms_console.web.verbs import Verb

WITHDRAW = Verb(
    "withdraw", Action.WITHDRAW_REQUEST, "Withdraw the request", "undo-2", danger=True,
    done="The request is withdrawn.",
)  # fmt: skip
_CLOSED = [
    state.value
    for state in ApprovalState
    if state not in (ApprovalState.OPEN, ApprovalState.APPROVED)
]


@require_safe
@page
def approval_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    officer = may(caller, Action.VOTE)
    show = request.GET.get("show", "mine" if officer else "open")
    after = request.GET.get("after", "")[:64]
    tabs = [
        ("open", "Waiting for votes"),
        ("approved", "Approved"),
        ("asked", "Asked by me"),
        ("all", "All requests"),
    ]
    if officer:
        tabs.insert(0, ("mine", "Waiting for my vote"))
    elif not may(caller, Action.WITHDRAW_REQUEST):
        tabs.remove(("asked", "Asked by me"))
    if show == "mine":
        found = queries.list_approvals(caller, for_me=True, after=after)
        me = str(caller.principal_id)
        rows = [row for row in found.rows if me in row.officers]
    elif show == "asked":
        found = queries.list_approvals(caller, by_me=True, after=after)
        rows = found.rows
    else:
        state = show if show in ApprovalState.values else ""
        found = queries.list_approvals(caller, state=state, after=after)
        rows = found.rows
    context = {
        "page": found,
        "rows": [(row, _agreed(row)) for row in rows],
        "show": show,
        "tabs": tabs,
        "shortage": shortage(),
        "now": clock.now(),
    }
    return render(request, "approvals/list.html", context)


def _agreed(row: Approval) -> int:
    return sum(vote.approve for vote in row.votes.all())


class VoteForm(HouseForm):
    digest = forms.CharField(max_length=64, widget=forms.HiddenInput)
    comment = forms.CharField(
        label="Comment",
        max_length=500,
        required=False,
        help_text="Kept with your vote. Say why, where you reject.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )


@require_safe
@page
def approval_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_approval(caller, reference)
    return _render(request, caller, row, VoteForm(initial={"digest": row.digest}))


def _render(
    request: HttpRequest, caller: Caller, row: Approval, form: VoteForm, status: int = 200
) -> HttpResponse:
    body: dict[str, Any] = json.loads(bytes(row.request))
    people = {
        str(person.id): person
        for person in queries.list_principals(caller, Kind.PERSON, limit=1000).rows
    }
    votes = list(row.votes.select_related("officer"))
    about_drift = row.subject_kind == "drift"
    drift = queries_stores.find_drift(caller, row.subject_id) if about_drift else None
    context = {
        "row": row,
        "title": wording.label("action", row.action),
        "consequence": _consequence(row, body, drift),
        "parameters": _parameters(body, row, drift),
        "target_key": body["target"].get("key"),
        "policy": [
            (wording.label("parameter", name), value)
            for name, value in body["target"].get("classification", {}).items()
            if name != "id"
        ],
        "policy_name": body["target"].get("classification", {}).get("title", ""),
        "votes": votes,
        "agreed": sum(vote.approve for vote in votes),
        "officers": [people[one] for one in row.officers if one in people],
        "ceremony": row.parameters.get("ceremony", "") if row.action == Action.IMPORT_KEY else "",
        "waits": _waits(row),
        "request_json": json.dumps(body, indent=2, ensure_ascii=False),
        "form": form,
        "may_vote": _may_vote(caller, row, [vote.officer_id for vote in votes]),
        "why_not": _why_not(caller, row, [vote.officer_id for vote in votes]),
        "may_withdraw": _live(row) and row.requester_id == caller.principal_id,
        "carry_out": _carry_out(caller, row),
        "expired": row.expires_at <= clock.now(),
        "next": _next(row, votes, people),
        "again": watching.again(request, row.state == ApprovalState.APPROVED and not _waits(row)),
        "jobs": list(row.jobs.all()[:5]),
        "shortage": shortage() if row.state == ApprovalState.OPEN else "",
    }
    return render(request, "approvals/page.html", context, status=status)


def _consequence(row: Approval, body: dict[str, Any], drift: Drift | None) -> str:
    """Return in a few sentences what will happen once the request is carried out."""
    if drift is not None:
        return settling.explanation(drift, row.action.removesuffix("_drift"))
    return wording.consequence(row.action, row.parameters, row.subject_name, _present(body, row))


def _parameters(
    body: dict[str, Any], row: Approval, drift: Drift | None = None
) -> list[tuple[str, Any, Any]]:
    """Return name, value and, where a policy changes, the value that it replaces."""
    if row.action == Action.UPDATE_CLASSIFICATION:
        return _policy_changes(body["target"].get("classification", {}), row.parameters)
    found = []
    for name, value in row.parameters.items():
        if value in (None, "", [], {}):
            continue
        if name == "difference" and drift is not None:
            found += [(told, said, None) for told, said in differences.put_to_vote(value, drift)]
            continue
        if name == "public_key" and row.action == Action.EXPORT_KEY:
            name, value = "recipient_sha256", exports.recipient_digest(value)
        found.append((_named(row, name), facts.shown(name, value), None))
    return found


def _named(row: Approval, name: str) -> str:
    if name == "expires_at" and row.action == Action.IMPORT_KEY:
        return "Material is removed"
    return facts.named(name)


def _policy_changes(
    before: dict[str, Any], parameters: dict[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return what a policy becomes and what it was. None is left as it is; empty is a change, too."""
    was = before | {"quorum": _quorum(before.get("quorum_m"), before.get("quorum_n"))}
    found = []
    for name, value in parameters.items():
        if value is None:
            continue
        if name == "quorum":
            value = _quorum(value.get("m"), value.get("n"))
        found.append((wording.label("parameter", name), value, was.get(name)))
    return found


def _quorum(m: int | None, n: int | None) -> str:
    return f"{m} officers, of at least {n}" if m else "nobody: one officer acts alone"


def _next(row: Approval, votes: list[Any], people: dict[str, Any]) -> str:
    """Return who must still agree to an open request, and what happens then."""
    if row.state != ApprovalState.OPEN:
        return ""
    voted = {str(vote.officer_id) for vote in votes} | {str(row.requester_id)}
    left = [people[one].name for one in row.officers if one in people and one not in voted]
    missing = row.quorum_m - sum(vote.approve for vote in votes)
    asked = f"{missing} more of {', '.join(left)} must agree." if left else ""
    then = (
        f"Then {row.requester.name} repeats the action."
        if _waits(row)
        else "Then the worker carries it out by itself."
    )
    return f"{asked} {then}".strip()


def _waits(row: Approval) -> bool:
    """Whether an approved request waits for who asked, and not for the worker."""
    return Action(row.action).row.by_requester


def _present(body: dict[str, Any], row: Approval) -> str:
    """Return the state in which the request saw the version that it is about, if it is about one."""
    versions = body["target"].get("key", {}).get("versions", [])
    return next((seen[1] for seen in versions if seen[0] == row.parameters.get("number")), "")


def _live(row: Approval) -> bool:
    return row.state in (ApprovalState.OPEN, ApprovalState.APPROVED)


def _may_vote(caller: Caller, row: Approval, voted: list[Any]) -> bool:
    return (
        row.state == ApprovalState.OPEN
        and row.expires_at > clock.now()
        and may(caller, Action.VOTE)
        and not _why_not(caller, row, voted)
    )


def _why_not(caller: Caller, row: Approval, voted: list[Any]) -> str:
    """Return why this officer has no vote here, in a sentence, or nothing."""
    if row.state != ApprovalState.OPEN or not may(caller, Action.VOTE):
        return ""
    if row.requester_id == caller.principal_id:
        return "You asked for this, so you don't vote on it."
    if str(caller.principal_id) not in row.officers:
        return "You were not an officer yet when this was asked for."
    if caller.principal_id in voted:
        return "You have voted. A vote is final."
    return ""


def _carry_out(caller: Caller, row: Approval) -> tuple[str, str, str] | None:
    """Return button, address and sentence where the requester carries out an approved request."""
    if row.state != ApprovalState.APPROVED or row.requester_id != caller.principal_id:
        return None
    if row.action == Action.IMPORT_KEY and row.key is not None:
        return _carry_out_import(row, row.key)
    if row.action == Action.EXPORT_KEY and row.key is not None:
        address = reverse("web:version-export", args=[row.key.alias, row.parameters["number"]])
        return "Go to the download", address, "The wrapped material can be downloaded once."
    if row.action == Action.APPOINT_OFFICER:
        address = reverse("web:officer-appoint") + f"?request={row.id}"
        return "Appoint now", address, "The first password is shown to you once."
    return None


def _carry_out_import(row: Approval, key: Key) -> tuple[str, str, str]:
    if ceremony := row.parameters.get("ceremony"):
        address = reverse("web:ceremony", args=[ceremony])
        return "Back to the ceremony", address, "Its material can be imported now."
    number = row.parameters.get("number")
    address = reverse("web:import-material", args=[key.alias])
    address += f"?version={number}" if number else ""
    return "Import the material", address, "Bring the same material once more: it was not kept."


@require_POST
@page
def vote(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Cast a vote. The form carries the digest of the request as it was shown."""
    form = VoteForm(request.POST)
    choice = request.POST.get("vote")
    if choice not in ("approve", "reject") or not form.is_valid():
        row = queries.find_approval(caller, reference)
        messages.error(request, "Choose to approve or to reject.")
        return _render(request, caller, row, form, status=400)
    voted = a.vote(caller, reference, approve=choice == "approve", **form.cleaned_data)
    told = {
        ApprovalState.APPROVED: "Your vote was the last one needed: the request is approved.",
        ApprovalState.REJECTED: "You rejected the request. That is final.",
    }
    messages.success(request, told.get(ApprovalState(voted.state), "Your vote is recorded."))
    return redirect("web:approval", reference=voted.id)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_approval(caller, reference)
    return confirm(
        request,
        caller,
        WITHDRAW,
        title=f"Withdraw: {wording.label('action', row.action)}, {row.subject_name}",
        explanation="Nothing of it will happen. It can be asked for again.",
        back=reverse("web:approval", args=[row.id]),
        do=lambda values: a.withdraw_request(caller, str(row.id), **values),
        done=WITHDRAW.done,
    )
