"""The root key: which one seals and who holds it, letting a key store hold it, rotating it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries, root_keys
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Unavailable
from keys.models import KeyStore
from keys.root_keys import Overview, Root
from keys.root_keys.overview import BY_FILE
from keys.root_keys.rows import RootState
from kms_console import health
from kms_console.web import watching, wording
from kms_console.web.doors import confirm, page
from kms_console.web.forms import HouseForm, reason_field
from kms_console.web.verbs import Verb

_BEGUN = "It is begun. “Root key” on this page says how it stands."
HOLD = Verb(
    "hold", Action.HOLD_ROOT_KEY, "Let a key store hold it", "lock-keyhole", done=_BEGUN
)  # fmt: skip
ROTATE = Verb("rotate", Action.ROTATE_ROOT_KEY, "Rotate", "rotate-cw", danger=True, done=_BEGUN)

_STATES = {
    RootState.MAKING: ("note", "hourglass", "Asked for"),
    RootState.CURRENT: ("ok", "circle-check", "Seals"),
    RootState.RETIRING: ("warn", "hourglass", "Being replaced"),
    RootState.RETIRED: ("", "circle-slash", "Retired"),
}
_NOWHERE = "no file, variable or key store here"


@dataclass(frozen=True, slots=True)
class Line:
    """One root key as the page shows it. `name` is empty as long as it is not made."""

    root: Root
    name: str
    state: tuple[str, str, str]
    held_by: str


@dataclass(frozen=True, slots=True)
class Panel:
    """How root keys stand. `seen` is None where that can't be read now; `trouble` says why, or why
    this process can't open the one that seals."""

    seen: Overview | None
    trouble: str
    again: str = ""
    holder: str = ""
    lines: tuple[Line, ...] = ()
    earlier: int = 0
    left: int = 0
    sealed: int = 0
    making: bool = False
    able: bool = False

    @property
    def total(self) -> int:
        return self.sealed + self.left

    @property
    def may_hold(self) -> bool:
        """Whether a store could take it. One that holds it already can have the log say so again."""
        seen = self.seen
        if seen is None or seen.current is None or self.making or not self.able:
            return False
        return not seen.held_by_store or bool(self.trouble)

    @property
    def may_rotate(self) -> bool:
        seen = self.seen
        return seen is not None and seen.current is not None and self.able and not self.making


def panel(request: HttpRequest, caller: Caller, stores: Iterable[KeyStore]) -> Panel:
    """Return what the page of key stores says of the root key, whatever can be reached now."""
    stores = list(stores)
    try:
        seen = root_keys.overview(caller)
    except Unavailable as error:
        return Panel(None, error.detail)
    titles = {store.name: store.title for store in stores}
    worth = [root for root in seen.roots if _worth_a_line(root, seen)]
    own = seen.current
    return Panel(
        seen,
        _trouble(),
        again=watching.again(request, seen.under_way),
        holder=titles.get(own.held_by, own.held_by) if own and seen.held_by_store else "",
        lines=tuple(_line(root, seen, titles) for root in worth),
        earlier=len(seen.roots) - len(worth),
        left=sum(root.materials for root in seen.roots if root is not own),
        sealed=own.materials if own else 0,
        making=any(root.state == RootState.MAKING for root in seen.roots),
        able=bool(holders(stores)),
    )


def holders(stores: Iterable[KeyStore]) -> list[KeyStore]:
    """Return the key stores that can hold a root key: those that are not themselves sealed under it."""
    return [store for store in stores if store.enabled and store.kind != "software"]


def _trouble() -> str:
    """Return why this process can't open the root key that seals, as /readyz says it, or nothing."""
    parts = health.report().parts
    return next((part.reason for part in parts if part.name == "root_key"), "")


def _worth_a_line(root: Root, seen: Overview) -> bool:
    """Whether anything is left of a root key: it opens something, is still somewhere, or will be."""
    ended = root.state == RootState.RETIRED and not root.at_store
    return not ended or bool(root.materials) or root.id == seen.filed


def _line(root: Root, seen: Overview, titles: dict[str, str]) -> Line:
    held = titles.get(root.held_by, root.held_by)
    if root.held_by == BY_FILE:
        held = "a file or a variable" if root.id == seen.filed else _NOWHERE
    elif root.state == RootState.RETIRED and not root.at_store:
        held = "a file or a variable" if root.id == seen.filed else "nobody any more"
    name = "" if root.state == RootState.MAKING else root.id
    return Line(root, name, _STATES[RootState(root.state)], held)


# --- the two changes


class HolderForm(HouseForm):
    """Which key store is to hold it, and why."""

    key_store = forms.ChoiceField(
        label="Key store",
        help_text="Every process must reach it when it starts.",
    )
    reason = reason_field()

    def __init__(self, stores: list[KeyStore], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["key_store"]
        field.choices = [("", "Choose one"), *[(row.name, row.title) for row in stores]]
        if not stores:
            field.help_text = "No key store here can: add an HSM, Vault, OpenBao, or a cloud's."


@require_http_methods(["GET", "HEAD", "POST"])
@page
def root_key_hold(request: HttpRequest, caller: Caller) -> HttpResponse:
    return _change(request, caller, HOLD, "Let a key store hold the root key", a.hold_root_key)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def root_key_rotate(request: HttpRequest, caller: Caller) -> HttpResponse:
    return _change(request, caller, ROTATE, "Rotate the root key", a.rotate_root_key)


def _change(
    request: HttpRequest, caller: Caller, verb: Verb, title: str, function: Any
) -> HttpResponse:
    """Ask which store and why, saying what will happen, then do it or ask the officers."""
    seen = root_keys.overview(caller)
    own = seen.current.held_by if seen.current and seen.held_by_store else ""
    stores = holders(queries.list_key_stores(caller))
    form = HolderForm(
        stores, request.POST if request.method == "POST" else None, initial={"key_store": own}
    )
    return confirm(
        request,
        caller,
        verb,
        title=title,
        explanation=wording.consequence(verb.action.value, {}, "") + _besides(verb, own),
        back=reverse("web:key-stores") + "#root-key",
        do=lambda values: function(caller, **values),
        done=verb.done,
        form=form,
    )


def _besides(verb: Verb, own: str) -> str:
    """Return what goes without saying to officers, who see who holds it in the request itself."""
    if verb is HOLD and own:
        return (
            f" {own} holds the present one already: asking again is only for after a restore, where the "
            "log's backup is older than that."
        )
    if verb is ROTATE and not own:
        return (
            " Only a file or a variable holds the present one. The console writes no root key to a file, "
            "so a key store holds the new one."
        )
    return ""
