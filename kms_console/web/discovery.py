"""What is in a key store: a listing with its progress, and adopting what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from keys import administration as a
from keys import clock, queries, queries_stores
from keys.actions import Action
from keys.backends.views import KeyView
from keys.callers import Caller
from keys.drift.plain import from_plain
from keys.errors import Invalid, KeyServiceError
from keys.models import Classification, FoundKey, Key, Listing
from keys.models.discovery import ListingState
from kms_console.web import failures, watching
from kms_console.web.doors import may, offer, page
from kms_console.web.forms import HouseForm, reason_field

# As many as one form takes: each is asked for at its store.
MOST = 50
ONLY = [
    ("", "All keys"),
    ("new", "Not in the console"),
    ("ours", "In the console"),
    ("problem", "Can't be adopted"),
]


@require_POST
@page
def key_store_discover(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Begin a listing, or go to the one that is under way."""
    row = a.discover_keys(caller, reference)
    return redirect("web:listing", reference=row.id)


@dataclass(frozen=True, slots=True)
class Found:
    """A key as a listing found it, and the console's own key that it is, where it is one."""

    row: FoundKey
    view: KeyView
    key: Key | None

    @property
    def adoptable(self) -> bool:
        return self.key is None and not self.view.problem


@require_safe
@page
def listing_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries_stores.find_listing(caller, reference)
    text, only = request.GET.get("text", "")[:200], request.GET.get("only", "")
    only = only if only in dict(ONLY) else ""
    running = row.state == ListingState.RUNNING
    again = watching.again(request, running)
    context: dict[str, Any] = {
        "row": row,
        "running": running,
        "again": again,
        "last_look": watching.LOOKS,
        "now": clock.now(),
        "text": text,
        "only": only,
        "filtered": bool(text or only),
        "choices": ONLY,
        "may_adopt": may(caller, Action.ADOPT_KEY),
    }
    if not again:  # while the page looks again by itself, nobody can choose on it
        after = request.GET.get("after", "")[:600]
        found = queries_stores.found_keys(
            caller, row, text=text, only=only, limit=MOST, cursor=after
        )
        context["page"] = found
        context["rows"] = [Found(one, from_plain(one.view), key) for one, key in found.rows]
        context["adoptable"] = any(one.adoptable for one in context["rows"])
    return render(request, "key_stores/listing.html", context)


# --- adopting


class AdoptForm(HouseForm):
    """One classification for all the chosen keys, and a name for each."""

    classification = forms.ChoiceField(
        label="Classification",
        help_text="Its policy holds for the keys from now on: who must agree, when they rotate.",
    )
    owner = forms.CharField(
        label="Owner", max_length=128, required=False, help_text="The team or person to ask."
    )
    reason = reason_field()

    def __init__(
        self, classes: list[Classification], chosen: list[FoundKey], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["classification"].choices = [  # type: ignore[attr-defined]
            ("", "Choose one"),
            *[(row.name, row.title) for row in classes],
        ]
        self.chosen = chosen
        for row in chosen:
            self.fields[f"name_{row.pk}"] = forms.CharField(
                label=f"Name of {row.name}", max_length=128, initial=row.name[:128]
            )
            self.fields[f"alias_{row.pk}"] = forms.CharField(
                label=f"Alias of {row.name}",
                max_length=128,
                required=False,
                widget=forms.TextInput(
                    attrs={"class": "mono", "spellcheck": "false", "placeholder": "from the name"}
                ),
            )

    def lines(self) -> list[tuple[FoundKey, Any, Any]]:
        """Return each chosen key with its two fields."""
        return [(row, self[f"name_{row.pk}"], self[f"alias_{row.pk}"]) for row in self.chosen]


@dataclass(frozen=True, slots=True)
class Result:
    """How the adoption of one key went."""

    row: FoundKey
    key: Key | None = None
    error: str = ""


@require_http_methods(["GET", "HEAD", "POST"])
@page
def listing_adopt(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """The keys to adopt stand in the address (`found`), so that the choice needs no script."""
    offer(request, caller, Action.ADOPT_KEY)
    listing = queries_stores.find_listing(caller, reference)
    chosen = _chosen(request, listing)
    store = listing.key_store
    classes = [
        row
        for row in queries.list_classifications(caller)
        if any(one.pk == store.pk for one in row.key_stores.all())
    ]
    form = AdoptForm(classes, chosen, request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        if form.is_valid():
            return _adopted(request, caller, listing, form)
        failures.told(request, Invalid("The form was not filled in as it asks."))
        status = 400
    context = {
        "form": form,
        "listing": listing,
        "store": store,
        "classes": classes,
        "back": reverse("web:listing", args=[listing.id]),
    }
    return render(request, "key_stores/adopt.html", context, status=status)


def _chosen(request: HttpRequest, listing: Listing) -> list[FoundKey]:
    """Return the keys of a listing that the address names. Raises Invalid for none, or too many."""
    asked = request.GET.getlist("found")
    ids = {int(one) for one in asked if one.isascii() and one.isdigit() and len(one) < 16}
    if len(ids) > MOST:
        raise Invalid(f"Choose at most {MOST} keys at a time.")
    rows = list(listing.keys.filter(pk__in=ids).order_by("name", "reference"))
    if not rows:
        raise Invalid("Choose at least one key of the listing.")
    return rows


def _adopted(
    request: HttpRequest, caller: Caller, listing: Listing, form: AdoptForm
) -> HttpResponse:
    """Adopt one key after the other: each stands on its own, in the trail too."""
    values = form.cleaned_data
    results, refused = [], 0
    for row in form.chosen:
        try:
            key = a.adopt_key(
                caller,
                values["classification"],
                key_store=listing.key_store.name,
                reference=row.reference,
                name=values[f"name_{row.pk}"],
                alias=values[f"alias_{row.pk}"],
                owner=values["owner"],
                reason=values["reason"],
            )
        except KeyServiceError as error:
            told = failures.told(request, error)
            refused = refused or failures.status_of(told)
            results.append(Result(row, error=told.detail))
        else:
            results.append(Result(row, key))
    done = sum(one.key is not None for one in results)
    context = {
        "listing": listing,
        "results": results,
        "done": done,
        "failed": len(results) - done,
        "classification": queries.find_classification(caller, values["classification"]),
        "back": reverse("web:listing", args=[listing.id]),
    }
    return render(request, "key_stores/adopted.html", context, status=200 if done else refused)
