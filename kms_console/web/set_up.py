"""The first run: the administrator, the first officers, the first key store and policies. Then never again."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.password_validation import validate_password
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries
from keys.callers import Door, Role
from keys.errors import KeyServiceError
from keys.secret import Secret
from keys.services import operator
from kms_console import identity, presets
from kms_console.secret_files import read_or_create
from kms_console.web import failures, throttle
from kms_console.web.doors import check_text
from kms_console.web.forms import HouseForm
from kms_console.web.sessions import refused

CODE_FILE = "setup-code"
OFFICERS, MOST_OFFICERS = 3, 16
WRONG_CODE = "That is not the set-up code, or there were too many attempts."


def set_up_code() -> str:
    """Return the one-time code, made at first sight and kept in a file that only its owner reads."""
    return read_or_create(settings.SECRETS_DIR / CODE_FILE)


class SetUpForm(HouseForm):
    code = forms.CharField(
        label="Set-up code",
        max_length=200,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "class": "mono", "spellcheck": "false"}
        ),
    )
    presets = forms.MultipleChoiceField(
        label="Begin with these classifications",
        required=False,
        choices=[(row["name"], row["title"]) for row in presets.CLASSIFICATIONS],
        initial=[row["name"] for row in presets.CLASSIFICATIONS],
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, officers: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.officers = officers
        self._add("administrator", required=True)
        for number in range(1, officers + 1):
            self._add(f"officer_{number}", required=number <= OFFICERS)
        self._add("auditor", required=False)

    def _add(self, prefix: str, *, required: bool) -> None:
        self.fields[f"{prefix}_name"] = forms.CharField(
            label="Name", max_length=128, required=required
        )
        self.fields[f"{prefix}_username"] = forms.CharField(
            label="User name",
            max_length=128,
            required=required,
            widget=forms.TextInput(
                attrs={"autocapitalize": "none", "spellcheck": "false", "autocomplete": "off"}
            ),
        )
        self.fields[f"{prefix}_password"] = forms.CharField(
            label="Password",
            max_length=1000,
            required=required,
            strip=False,
            widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        )

    def blocks(self) -> Iterator[tuple[str, str, list[forms.BoundField]]]:
        """Yield (prefix, title, its three fields) of every person."""
        for prefix, title in self._people():
            yield prefix, title, [self[f"{prefix}_{part}"] for part in _PARTS]

    def _people(self) -> Iterator[tuple[str, str]]:
        yield "administrator", "Administrator"
        for number in range(1, self.officers + 1):
            yield f"officer_{number}", f"Officer {number}"
        yield "auditor", "Auditor (optional)"

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        taken: set[str] = set()
        for prefix, _ in self._people():
            given = [values.get(f"{prefix}_{part}", "") for part in _PARTS]
            if any(given) and not all(given) and not self._refused(prefix):
                self.add_error(
                    f"{prefix}_name", "Give name, user name and password, or none of them."
                )
            name = given[1].lower()
            if name and name in taken:
                self.add_error(f"{prefix}_username", "Somebody above has this user name.")
            taken.add(name)
            if given[2]:
                self._check_password(f"{prefix}_password", given[2])
        return values

    def _refused(self, prefix: str) -> bool:
        return any(f"{prefix}_{part}" in self.errors for part in _PARTS)

    def _check_password(self, field: str, password: str) -> None:
        try:
            validate_password(password)
        except forms.ValidationError as error:
            self.add_error(field, error)

    def people(self) -> Secret:
        """Return everybody, as the domain takes them: secret as a whole."""
        people = []
        for prefix, _ in self._people():
            name, username, password = (self.cleaned_data[f"{prefix}_{part}"] for part in _PARTS)
            if name:
                role = Role.OFFICER.value if prefix.startswith("officer") else prefix
                people.append(
                    {"name": name, "username": username, "role": role, "password": password}
                )
        return Secret(json.dumps(people).encode())


_PARTS = ("name", "username", "password")


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def set_up(request: HttpRequest) -> HttpResponse:
    """Shown to who can read the code's file on the host; once done, not there for ever."""
    if queries.is_set_up():
        raise Http404
    code = set_up_code()
    form = SetUpForm(_officers(request), request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        status = 400
        try:
            check_text(request)
            if form.is_valid():
                status = _proved(request, form, code)
                if status == 200:
                    _carry_out(request, form)
                    return redirect("web:sign-in")
        except KeyServiceError as error:
            form.refuse(error)
            status = failures.status_of(error)
    context = {"form": form, "file": settings.SECRETS_DIR / CODE_FILE, "more": form.officers + 1}
    return render(request, "set_up.html", context, status=status)


def _officers(request: HttpRequest) -> int:
    """Return how many officers the form has room for."""
    text = request.POST.get("officers") or request.GET.get("officers") or ""
    wanted = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else OFFICERS
    return min(max(wanted, OFFICERS), MOST_OFFICERS)


def _proved(request: HttpRequest, form: SetUpForm, code: str) -> int:
    """Return 200 where the form carries the code; else 403 or 429, having counted the failure."""
    source = identity.source_of(request.META)
    if throttle.blocked("set-up", source):
        refused(source, "too_many_attempts")
        form.add_error("code", WRONG_CODE)
        return 429
    given = form.cleaned_data["code"].strip()
    if not hmac.compare_digest(given.encode(), code.encode()):
        throttle.failed("set-up", source)
        refused(source, "wrong_set_up_code")
        form.add_error("code", WRONG_CODE)
        return 403
    return 200


def _carry_out(request: HttpRequest, form: SetUpForm) -> None:
    """Make the people, then the key store and the policies, all by the functions of any later one."""
    caller = operator().through(Door.CONSOLE)
    a.set_up(caller, people=form.people())
    (settings.SECRETS_DIR / CODE_FILE).unlink(missing_ok=True)
    chosen = [row for row in presets.CLASSIFICATIONS if row["name"] in form.cleaned_data["presets"]]
    try:
        a.create_key_store(caller, **presets.FIRST_KEY_STORE)
        for row in chosen:
            a.create_classification(caller, **row)
    except KeyServiceError as error:
        messages.warning(
            request,
            f"The accounts are made; the first policies are not all there: {error.detail} "
            "An administrator can add them.",
        )
        return
    messages.success(request, "The console is set up. Sign in with one of the accounts.")
