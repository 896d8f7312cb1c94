"""One entry of the trail: what it says, what stands beside it, its proof, and the votes behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from audit.models import Entry
from audit.search import Filters
from keys import queries, trail
from keys.callers import Caller
from keys.errors import KeyServiceError
from keys.trail import trust
from kms_console.web import audit_names, facts, proof_tree
from kms_console.web.doors import page

BESIDE = 3  # entries before and after that are listed
SAME_REQUEST = 7
CITING = 50  # entries of one request for votes that are looked at, of each kind


@require_safe
@page
def entry_page(request: HttpRequest, caller: Caller, index: int) -> HttpResponse:
    entry = trail.find_entry(caller, index)
    head = trail.log_head(caller)
    written = trail.written(entry)
    proof = _proof(caller, entry, head)
    audit_names.shown([entry])
    context = {
        "entry": entry,
        "beside": _beside(caller, index),
        "same": _same_request(caller, entry),
        "previous": index - 1 if index > 0 else None,
        "following": index + 1 if index + 1 < head.size else None,
        **(_said(caller, entry, written) if written is not None else _raw(entry)),
        **proof,
    }
    return render(request, "audit/entry.html", context)


def _said(caller: Caller, entry: Entry, written: dict[str, Any]) -> dict[str, Any]:
    body = audit_names.opened(written)
    return {
        "body": json.dumps(written, indent=2, ensure_ascii=False),
        "opened": body != written,
        "classification": written["object"].get("classification", ""),
        "facts": facts.rows(body["facts"]),
        "states": _states(body["facts"].get("states")),
        "approvals": [_approval(caller, one, entry.index) for one in body["approvals"][:5]],
    }


def _states(told: Any) -> list[dict[str, Any]]:
    """Return what became of versions; nothing where an entry has something else in that place."""
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def _raw(entry: Entry) -> dict[str, Any]:
    """Return what is shown of an entry whose bytes can't be read: the bytes, others than text escaped."""
    return {"damaged": True, "body": bytes(entry.body).decode("utf-8", "backslashreplace")}


def _proof(caller: Caller, entry: Entry, head: trail.Proof) -> dict[str, Any]:
    """Return the proof, drawn: in the newest checkpoint that covers the entry, else in the log now."""
    leaf = trust.leaf_of(entry)
    found = trust.covering(caller, entry.index)
    context: dict[str, Any] = {"leaf_hash": leaf.hex(), "altered": leaf != bytes(entry.leaf_hash)}
    size, root = head.size, head.root
    if found is not None:
        context["signed"], context["first"] = found
        size, root = found[0].checkpoint.size, found[0].root
    try:
        proof = trail.prove_at(caller, entry.index, size)
    except KeyServiceError as error:
        return context | {"no_proof": error.detail}
    hashes = [bytes.fromhex(one) for one in proof.hashes]
    drawing = proof_tree.draw(entry.index, size, leaf, hashes, bytes.fromhex(root))
    return context | {"proof": proof, "drawing": drawing, "root": root, "size": size}


def _beside(caller: Caller, index: int) -> list[Entry]:
    """Return the entry with a few before and after it, oldest first."""
    rows = trail.search_audit(caller, before=index + BESIDE + 1, limit=2 * BESIDE + 1)
    rows = [row for row in rows if row.index >= index - BESIDE]
    audit_names.shown(rows)
    return rows[::-1]


def _same_request(caller: Caller, entry: Entry) -> list[Entry]:
    """Return the other entries of the same request, oldest first."""
    if not entry.request_id:
        return []
    wanted = Filters(request_id=entry.request_id)
    rows = trail.search_audit(caller, wanted, limit=SAME_REQUEST)
    rows = [row for row in rows if row.index != entry.index]
    audit_names.shown(rows)
    return rows[::-1]


@dataclass(frozen=True, slots=True)
class Told:
    """What one entry says of a request for votes."""

    entry: Entry
    what: str  # asked, vote or done
    agreed: bool | None
    digest: str  # what it was about: the digest of the request, in hex; "" where it names none
    same: bool  # whether that is the digest of the request that was asked for


@dataclass(frozen=True, slots=True)
class Behind:
    """A request for votes as its entries tell it; `row` is what the console knows of it now."""

    id: str
    row: Any
    digest: str
    needed: int
    told: list[Told]
    complete: bool  # whether enough agreed, to exactly this request

    @property
    def agreed(self) -> int:
        return sum(one.what == "vote" and bool(one.agreed) and one.same for one in self.told)


def _approval(caller: Caller, approval: str, upto: int) -> Behind:
    """Gather the entries that cite a request. That they exist is the record's word, not the table's."""
    rows = trail.citing(caller, approval, CITING)
    cited = [(row, body) for row in rows if (body := trail.written(row)) is not None]
    audit_names.shown([row for row, _ in cited])
    asked = next((body for _, body in cited if body["outcome"] == "pending"), None)
    digest = str(asked["facts"].get("request_sha256", "")) if asked else ""
    quorum = asked["facts"].get("quorum") if asked else None
    needed = quorum.get("m") if isinstance(quorum, dict) else 0
    needed = needed if isinstance(needed, int) else 0
    told = [_told(row, body, digest) for row, body in cited]
    agreed = {one.entry.actor_id for one in told if one.what == "vote" and one.agreed and one.same}
    try:
        known: Any = queries.find_approval(caller, approval)
    except KeyServiceError:
        known = None
    return Behind(approval, known, digest, needed, told, bool(needed) and len(agreed) >= needed)


def _told(row: Entry, body: dict[str, Any], digest: str) -> Told:
    said = body["facts"]
    its = str(said.get("request_sha256", ""))
    vote = body["action"] == "vote"
    what = "vote" if vote else "asked" if body["outcome"] == "pending" else "done"
    agreed = said.get("agreed") if vote else None
    return Told(row, what, agreed, its, bool(its) and its == digest)
