"""Classifications: the policies that keys follow; pausing and resuming their rotation."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import approvals, queries
from keys.actions import Action
from keys.algorithms import SPECS
from keys.backends.base import Protection
from keys.callers import Caller
from keys.models import Classification, KeyStore
from keys.queries import KeyFilters
from kms_console.web import specs
from kms_console.web.doors import confirm, handle, may, offer, page
from kms_console.web.forms import HouseForm, reason_field
from kms_console.web.verbs import Verb

PAUSE = Verb(
    "pause", Action.PAUSE_ROTATION, "Pause rotation", "pause", danger=True,
    done="Rotation is paused.",
)  # fmt: skip
RESUME = Verb(
    "resume", Action.RESUME_ROTATION, "Resume rotation", "play",
    done="Rotation goes on; what is due is rotated by the next sweep.",
)  # fmt: skip


@require_safe
@page
def classification_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    rows = queries.list_classifications(caller)
    return render(request, "classifications/list.html", {"rows": rows})


@require_safe
@page
def classification_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_classification(caller, reference)
    context = {
        "row": row,
        "stores": list(row.key_stores.all()),
        "keys": queries.list_keys(caller, KeyFilters(classification=row.name), limit=10),
        "may_pause": not row.rotation_paused and may(caller, Action.PAUSE_ROTATION),
        "may_resume": row.rotation_paused and may(caller, Action.RESUME_ROTATION),
        "requests": [
            one
            for one in queries.list_approvals(caller, state="open", limit=200).rows
            if one.subject_kind == "classification" and one.subject_id == str(row.id)
        ],
    }
    return render(request, "classifications/page.html", context)


class ClassificationForm(HouseForm):
    title = forms.CharField(label="Name", max_length=128, help_text="What people call it.")
    name = forms.CharField(
        label="Short name",
        max_length=128,
        help_text="What programs call it, for ever: patient-health.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    description = forms.CharField(
        label="Description",
        max_length=500,
        required=False,
        help_text="Which data belongs here.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    allowed_specs = forms.MultipleChoiceField(
        label="Key types it allows",
        choices=specs.choices(SPECS),
        widget=forms.CheckboxSelectMultiple,
    )
    key_stores = forms.MultipleChoiceField(
        label="Key stores it allows", widget=forms.CheckboxSelectMultiple
    )
    minimum_protection = forms.ChoiceField(
        label="Protection at least",
        choices=[
            (Protection.SOFTWARE.value, "Software"),
            (Protection.HSM.value, "Hardware security module"),
        ],
    )
    rotation_days = forms.IntegerField(
        label="Rotate every (days)", min_value=1, max_value=3650, initial=365
    )
    originator_days = forms.IntegerField(
        label="A version protects new data for (days)",
        min_value=1,
        max_value=3650,
        initial=730,
        help_text="Originator-usage period, NIST SP 800-57.",
    )
    recipient_days = forms.IntegerField(
        label="A version can be read with for (days)",
        min_value=1,
        max_value=36500,
        initial=1825,
        help_text="Recipient-usage period, counted from the same day.",
    )
    destruction_days = forms.IntegerField(
        label="Destruction waits at least (days)", min_value=1, max_value=120, initial=30
    )
    quorum_m = forms.IntegerField(
        label="Officers who must agree",
        required=False,
        min_value=2,
        max_value=16,
        help_text="Besides who asks. Empty: one officer acts alone.",
    )
    quorum_n = forms.IntegerField(
        label="Officers there must be at least",
        required=False,
        min_value=3,
        max_value=16,
        help_text="More than must agree.",
    )
    suspended_decrypts = forms.BooleanField(
        label="A suspended version still decrypts and verifies", required=False
    )
    allows_export = forms.BooleanField(
        label="Keys may be made exportable",
        required=False,
        help_text="Material of such a key can leave, wrapped for a recipient. That always takes votes: "
        "without a quorum above, nothing is exported.",
    )

    def __init__(self, stores: list[KeyStore], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key_stores"].choices = [  # type: ignore[attr-defined]
            (store.name, store.title) for store in stores
        ]
        have = len(approvals.officers())
        text = f"More than must agree. There are {have} now; with fewer, nothing is approved."
        self.fields["quorum_n"].help_text = text


class ChangeForm(ClassificationForm):
    """The same without the short name, which never changes, and with a reason."""

    renamed = {"quorum": "quorum_m"}
    name = None  # type: ignore[assignment]
    reason = reason_field()


@require_http_methods(["GET", "HEAD", "POST"])
@page
def classification_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.CREATE_CLASSIFICATION)
    stores = queries.list_key_stores(caller)
    form = ClassificationForm(stores, request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        row = a.create_classification(caller, **values)
        messages.success(request, "The classification is there; keys can be created in it.")
        return redirect("web:classification", reference=row.name)

    context = {"back": reverse("web:classifications"), "title": "New classification"}
    return handle(request, form, create, "classifications/form.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def classification_edit(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    offer(request, caller, Action.UPDATE_CLASSIFICATION)
    row = queries.find_classification(caller, reference)
    stores = queries.list_key_stores(caller)
    present = _present(row)
    form = ChangeForm(stores, request.POST if request.method == "POST" else None, initial=present)

    def save(values: dict[str, Any]) -> HttpResponse:
        changes = _changes(present, values)
        if not changes:
            messages.info(request, "Nothing was changed.")
            return redirect("web:classification", reference=row.name)
        a.update_classification(caller, row.name, reason=values["reason"], **changes)
        messages.success(request, "The classification is changed.")
        return redirect("web:classification", reference=row.name)

    context = {
        "back": reverse("web:classification", args=[row.name]),
        "title": f"Change {row.title}",
        "row": row,
    }
    return handle(request, form, save, "classifications/form.html", context)


def _present(row: Classification) -> dict[str, Any]:
    columns = (
        "title description minimum_protection rotation_days originator_days recipient_days "
        "destruction_days quorum_m quorum_n suspended_decrypts allows_export"
    )
    present = {name: getattr(row, name) for name in columns.split()}
    present["allowed_specs"] = sorted(row.allowed_specs)
    present["key_stores"] = sorted(store.name for store in row.key_stores.all())
    return present


def _changes(present: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return only what differs: that is what officers vote on."""
    changes = {}
    for name, value in values.items():
        value = sorted(value) if isinstance(value, list) else value
        if name in present and value != present[name]:
            changes[name] = value
    if "quorum_m" in changes or "quorum_n" in changes:
        pair = {"m": values["quorum_m"], "n": values["quorum_n"]}
        changes["quorum"] = {name: value for name, value in pair.items() if value is not None}
        changes.pop("quorum_m", None)
        changes.pop("quorum_n", None)
    return changes


@require_http_methods(["GET", "HEAD", "POST"])
@page
def rotation_pause(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_classification(caller, reference)
    return confirm(
        request,
        caller,
        PAUSE,
        title=f"Pause rotation: {row.title}",
        explanation="No key of this classification is rotated by schedule until somebody resumes it. "
        "Keys stay due, the overview says so, and each can be rotated by hand.",
        back=reverse("web:classification", args=[row.name]),
        do=lambda values: a.pause_rotation(caller, row.name, **values),
        done=PAUSE.done,
        classification=row,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def rotation_resume(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_classification(caller, reference)
    return confirm(
        request,
        caller,
        RESUME,
        title=f"Resume rotation: {row.title}",
        explanation="Keys that became due meanwhile are rotated by the next sweep, within a minute or so.",
        back=reverse("web:classification", args=[row.name]),
        do=lambda values: a.resume_rotation(caller, row.name, **values),
        done=RESUME.done,
        classification=row,
    )
