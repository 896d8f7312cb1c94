"""People: who signs in, appointing and dismissing officers, one's own account."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import queries
from keys.actions import Action
from keys.administration.people import Appointed
from keys.approvals import shortage
from keys.callers import Caller, Kind, Role
from keys.errors import Denied, NotFound
from keys.models import Principal
from keys.secret import Secret
from kms_console.web import throttle
from kms_console.web.doors import confirm, handle, offer, page, show_once
from kms_console.web.forms import HouseForm, PasswordForm, reason_field
from kms_console.web.verbs import Verb

DISMISS = Verb(
    "dismiss", Action.DISMISS_OFFICER, "Dismiss the officer", "user-minus", danger=True,
    done="The officer is dismissed.",
)  # fmt: skip
CLOSE = Verb(
    "close", Action.DEACTIVATE_PRINCIPAL, "Close the account", "user-minus", danger=True,
    done="The account is closed.",
)  # fmt: skip

ERASE = Verb(
    "erase", Action.ERASE_PERSON, "Erase the person's data", "eraser", danger=True,
    done="The person's data is erased.",
)  # fmt: skip


@require_safe
@page
def people_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    after = request.GET.get("after", "")[:256]
    found = queries.list_principals(caller, Kind.PERSON, after=after)
    context = {"page": found, "after": after, "shortage": shortage()}
    return render(request, "people/list.html", context)


class PersonForm(HouseForm):
    name = forms.CharField(label="Name", max_length=128)
    username = forms.CharField(
        label="User name",
        max_length=128,
        help_text="For signing in: lower-case letters, digits, dots, dashes.",
        widget=forms.TextInput(attrs={"autocapitalize": "none", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(
        label="Role",
        choices=[
            (Role.AUDITOR.value, "Auditor: sees everything, changes nothing"),
            (Role.ADMINISTRATOR.value, "Administrator: people, applications, policies, key stores"),
        ],
        widget=forms.RadioSelect,
        initial=Role.AUDITOR.value,
    )
    reason = reason_field(required=False)


class OfficerForm(HouseForm):
    name = forms.CharField(label="Name", max_length=128)
    username = PersonForm.base_fields["username"]
    reason = reason_field()


@require_http_methods(["GET", "HEAD", "POST"])
@page
def person_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.CREATE_PERSON)
    form = PersonForm(request.POST if request.method == "POST" else None)
    context = {
        "title": "Add a person",
        "back": reverse("web:people"),
        "crumb": "People",
        "button": "Add and show the first password",
        "about": "An administrator or an auditor. Security officers are appointed instead.",
    }
    return handle(
        request, form, lambda values: _welcome(request, a.create_person(caller, **values)),
        "form.html", context,
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@page
def officer_appoint(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Appoint an officer. Where votes were needed, the form repeats what was agreed to."""
    offer(request, caller, Action.APPOINT_OFFICER)
    initial: dict[str, Any] = {}
    wanted = request.GET.get("request", "")[:64]
    if wanted:
        agreed = queries.find_approval(caller, wanted)
        if agreed.action == Action.APPOINT_OFFICER:
            initial = {**agreed.parameters, "reason": agreed.reason}
    form = OfficerForm(request.POST if request.method == "POST" else None, initial=initial)
    context = {
        "title": "Appoint a security officer",
        "back": reverse("web:people"),
        "crumb": "People",
        "button": "Appoint",
        "about": "Officers create and rotate keys, grant access, and vote. Once there are enough of them, "
        "they must agree to a new one; then repeat this form to get the first password.",
    }
    return handle(
        request, form, lambda values: _welcome(request, a.appoint_officer(caller, **values)),
        "form.html", context,
    )  # fmt: skip


def _welcome(request: HttpRequest, appointed: Appointed) -> HttpResponse:
    """Show the first password, this once."""
    password = appointed.password.reveal().decode() if appointed.password else ""
    return show_once(
        request,
        title=f"The first password of {appointed.principal.name}",
        secret=password,
        explanation="Hand it over in person or by another safe way. It is changed under “Your account” "
        "after signing in. Nobody can show it again.",
        back=reverse("web:people"),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def officer_dismiss(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = _person(caller, reference)
    return confirm(
        request,
        caller,
        DISMISS,
        title=f"Dismiss {row.name}",
        explanation="The account is closed at once and for good. Requests that list this officer become "
        "void and must be asked for again.",
        back=reverse("web:people"),
        do=lambda values: a.dismiss_officer(caller, str(row.id), **values),
        done=DISMISS.done,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def person_close(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = _person(caller, reference)
    return confirm(
        request,
        caller,
        CLOSE,
        title=f"Close the account of {row.name}",
        explanation="Every session ends at once. The account can't be opened again. Its name stays in "
        "the trail until it is erased.",
        back=reverse("web:people"),
        do=lambda values: a.deactivate_principal(caller, str(row.id), **values),
        done=CLOSE.done,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def person_erase(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = _person(caller, reference)
    return confirm(
        request,
        caller,
        ERASE,
        title=f"Erase the data of {row.name}",
        explanation="The name, the user name and the addresses are forgotten for good, here and in the "
        "trail. Entries, proofs and the account's id stay. Reasons and comments that people wrote are "
        "not searched.",
        back=reverse("web:people"),
        do=lambda values: a.erase_person(caller, str(row.id), **values),
        done=ERASE.done,
    )


def _person(caller: Caller, reference: str) -> Principal:
    row = queries.find_principal(caller, reference)
    if row.kind != Kind.PERSON:
        raise NotFound("There is no such person.")
    return row


@require_http_methods(["GET", "HEAD", "POST"])
@page
def account(request: HttpRequest, caller: Caller) -> HttpResponse:
    """One's own account: change the password."""
    form = PasswordForm(request.POST if request.method == "POST" else None)

    def change(values: dict[str, Any]) -> HttpResponse:
        # Whoever found a session open must not find out its owner's password by trying.
        me = str(caller.principal_id)
        if throttle.blocked(me, ""):
            raise Denied("Too many attempts: wait a quarter of an hour.")
        try:
            row = a.change_password(
                caller, me, old=Secret(values["old"].encode()), new=Secret(values["new"].encode())
            )
        except Denied:
            throttle.failed(me, "")
            raise
        throttle.succeeded(me, "")
        # Every other session ends with the old password; this one goes on under a new id.
        update_session_auth_hash(request, row.user)  # type: ignore[arg-type]
        messages.success(request, "Your password is changed.")
        return redirect("web:account")

    return handle(request, form, change, "account.html")
