"""Requests that wait for officers' votes, and jobs."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.models.job import JobState
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Paged,
    Why,
    asked,
    caller_of,
    listed,
    read,
)

_OLGA = {"id": "d9b2d63d-a233-4123-847a-7090a2c3f0e1", "name": "Olga"}
_APPROVAL = {
    "id": "8a3c2f0e-5d0b-4c0f-9f0c-1c2d3e4f5a66",
    "action": "rotate_key",
    "subject": {"kind": "key", "id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d", "name": "records"},
    "parameters": {"activate": True},
    "reason": "An administrator left.",
    "requester": _OLGA,
    "digest": "5f3c0a5c6c1f0f1f5b8f4f6f1f0c9a0a7d8f6f4e3d2c1b0a99887766554433aa",
    "quorum": {"m": 2, "n": 3},
    "officers": [_OLGA["id"]],
    "votes": [],
    "state": "open",
    "state_reason": "",
    "created_at": "2027-01-01T09:30:00Z",
    "expires_at": "2027-01-08T09:30:00Z",
    "decided_at": None,
    "executed_at": None,
}


class ApprovalQuery(Paged):
    """`for_me`: those on which the caller can still vote."""

    state: shapes.ApprovalState | UnsetType = UNSET
    for_me: bool = False
    key: str = ""


class CastVote(Asked):
    """`digest` is that of the request as the officer read it: a vote for anything else does not count."""

    approve: bool
    digest: Annotated[str, Meta(max_length=64)]
    comment: str | UnsetType = UNSET


class JobQuery(Paged):
    """`state`: also "open", for those that are not finished."""

    state: (
        Annotated[str, shapes.one_of([*JobState.values, "open"], "JobStateOrOpen")] | UnsetType
    ) = UNSET
    key: str = ""


class Approvals(Door):
    @operation(
        "list_approvals",
        "List requests",
        tag="approvals",
        query=ApprovalQuery,
        answers={200: page_of(shapes.Approval)},
        answer_example={"items": [_APPROVAL], "next": None},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, ApprovalQuery), caller_of(request)
        page = queries.list_approvals(
            caller,
            state=wanted.state or "",
            for_me=wanted.for_me,
            key=queries.find_key(caller, wanted.key) if wanted.key else None,
            after=wanted.after,
            limit=wanted.limit,
        )
        return listed(caller, page, shown.approval)


class OneApproval(Door):
    @operation(
        "find_approval",
        "Read a request",
        tag="approvals",
        answers={200: shapes.Approval},
        answer_example=_APPROVAL,
    )
    def get(self, request: Request, approval: str) -> Response:
        caller = caller_of(request)
        return Response(shown.approval(queries.find_approval(caller, approval), caller))


class VoteView(Door):
    @operation(
        "vote",
        "Vote on a request",
        tag="approvals",
        body=CastVote,
        answers={200: shapes.Approval},
        example={"approve": True, "digest": _APPROVAL["digest"], "comment": "Agreed in CAB 17."},
        answer_example=_APPROVAL,
    )
    def post(self, request: Request, approval: str) -> Response:
        caller, values = caller_of(request), given(read(request, CastVote))
        row = administration.vote(caller, approval, **values)
        return Response(shown.approval(row, caller))


class Withdraw(Door):
    @operation(
        "withdraw_request",
        "Take one's own request back",
        tag="approvals",
        body=Why,
        answers={200: shapes.Approval},
    )
    def post(self, request: Request, approval: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.withdraw_request(caller, approval, **values)
        return Response(shown.approval(row, caller))


class Jobs(Door):
    @operation(
        "list_jobs",
        "List jobs",
        tag="jobs",
        query=JobQuery,
        answers={200: page_of(shapes.Job)},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, JobQuery), caller_of(request)
        page = queries.list_jobs(
            caller,
            state=wanted.state or "",
            key=queries.find_key(caller, wanted.key) if wanted.key else None,
            after=wanted.after,
            limit=wanted.limit,
        )
        return listed(caller, page, shown.job)


class OneJob(Door):
    @operation("find_job", "Read a job", tag="jobs", answers={200: shapes.Job})
    def get(self, request: Request, job: str) -> Response:
        caller = caller_of(request)
        return Response(shown.job(queries.find_job(caller, job), caller))
