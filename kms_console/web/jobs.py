"""Jobs: what is to be done at a key store, and how it went."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from keys import clock, queries
from keys.callers import Caller
from keys.models.job import OPEN_STATES, JobState
from kms_console.web import watching
from kms_console.web.doors import page

TABS = [
    ("", "All"),
    ("open", "Not finished"),
    ("failed", "Failed"),
    ("succeeded", "Done"),
    ("cancelled", "Cancelled"),
]


@require_safe
@page
def job_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    state = request.GET.get("state", "")
    if state not in (*JobState.values, "open"):
        state = ""
    found = queries.list_jobs(caller, state=state, after=request.GET.get("after", "")[:64])
    context = {"page": found, "tabs": TABS, "state": state, "now": clock.now()}
    return render(request, "jobs/list.html", context)


@require_safe
@page
def job_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    job = queries.find_job(caller, reference)
    unfinished, now = job.state in OPEN_STATES, clock.now()
    context = {
        "job": job,
        "open": unfinished,
        "again": watching.again(request, unfinished and job.run_after <= now),
        "now": now,
    }
    return render(request, "jobs/page.html", context)
