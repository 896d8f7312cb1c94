"""How the console writes times, states and names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django import template
from django.forms import BoundField, CheckboxInput, HiddenInput, RadioSelect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from lucide.templatetags.lucide import _render_icon

from kms_console.web import wording

register = template.Library()


# --- time


@register.filter
def relative(moment: datetime | None, now: datetime | None = None) -> str:
    """Return a time as people say it: "in 12 days", "3 hours ago", "just now"."""
    if moment is None:
        return ""
    seconds = (moment - (now or timezone.now())).total_seconds()
    size = abs(seconds)
    if size < 45:
        return "just now" if seconds < 0 else "now"
    for unit, length, most in (
        ("minute", 60, 60),
        ("hour", 3600, 24),
        ("day", 86400, 60),
        ("month", 86400 * 30.44, 24),
        ("year", 86400 * 365.25, 10**6),
    ):
        count = round(size / length)
        if count < most:
            count = max(count, 1)
            amount = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"in {amount}" if seconds > 0 else f"{amount} ago"
    return ""


@register.filter
def day(moment: datetime | None) -> str:
    """Return a date, absolute with relative in text."""
    return _time(moment, "{:%-d %b %Y}")


@register.filter
def moment(value: datetime | None) -> str:
    """Return date and time of day (UTC), with relative in text."""
    return _time(value, "{:%-d %b %Y, %H:%M}")


@register.filter
def clock(value: datetime | None) -> str:
    """Return date and time of day (UTC) to the second, in one line."""
    return _time(value, "{:%-d %b %Y, %H:%M:%S}", told=False)


def _time(value: datetime | None, form: str, told: bool = True) -> str:
    if value is None:
        return ""
    utc = value.astimezone(UTC)
    parts = format_html(
        '<time datetime="{}" title="{}">{}</time>',
        utc.isoformat(),
        f"{utc:%Y-%m-%d %H:%M:%S} UTC",
        form.format(utc),
    )
    if not told:
        return parts
    return format_html(
        # In a table the second half stands below the first, without the comma: see parts.css.
        '<span class="when">{}<span class="comma">, </span><span class="then">{}</span></span>',
        parts,
        relative(value),
    )


# --- states


@register.simple_tag
def badge(kind: str, value: object) -> str:
    """Return a state as colour, icon and word. `kind` is a table of kms_console.web.wording."""
    return _badge(*wording.state(kind, str(value)))


@register.simple_tag
def mark(tone: str, name: str, word: str) -> str:
    """Return a badge of any words."""
    return _badge(tone, name, word)


def _badge(tone: str, name: str, word: str) -> SafeString:
    return format_html(
        '<span class="badge {}">{}{}</span>',
        tone,
        icon(name, 14),
        word,
    )


@register.simple_tag
def icon(name: str, size: int = 18, tone: str = "") -> str:
    """Return an icon that says nothing that the words beside it don't say."""
    return _drawn(str(name), size, tone)


@lru_cache(maxsize=1000)
def _drawn(name: str, size: int, tone: str) -> SafeString:
    """Draw it once: the library opens its archive anew for each."""
    svg = _render_icon(name, size, **{"aria-hidden": "true", "class": f"icon {tone}".strip()})
    return SafeString(svg)


# --- words


@register.filter
def label(value: object, kind: str) -> str:
    """Return the plain English for a code: `{{ key.spec|label:"spec" }}`."""
    return wording.label(kind, str(value))


@register.filter
def days(count: int | None) -> str:
    """Return a number of days as text."""
    if count is None:
        return ""
    return f"{count} day{'' if count == 1 else 's'}"


@register.filter
def thousands(count: int) -> str:
    """Return a large number as people read it: 4,294,967,296."""
    return f"{count:,}"


@register.filter
def is_hash(value: object) -> bool:
    """Whether a value is a digest or a check value, in hexadecimal."""
    text = value if isinstance(value, str) else ""
    return len(text) in (16, 64) and set(text) <= set("0123456789abcdef")


@register.filter
def agreed(votes: Iterable[Any]) -> int:
    """Return how many of these votes agree."""
    return sum(vote.approve for vote in votes)


@register.filter
def words(code: str) -> str:
    """Return a code of ours as words: no_grant, no grant."""
    return code.replace("_", " ")


@register.filter
def pretty(value: Any) -> str:
    """Return a value of JSON as people read it."""
    if value is None or value == "" or value == [] or value == {}:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, indent=2)
    return str(value)


@register.filter
def object_name(entry: Any) -> str:
    """Return what an entry is about by its name; a request's begins with the code of its action."""
    name = str(entry.object_name or entry.object_id)
    if entry.object_kind == "door":
        return wording.label("door", name)
    action, blank, subject = name.partition(" ")
    if entry.object_kind == "approval" and blank:
        return f"{wording.label('action', action)}: {subject}"
    return name


@register.filter
def short(value: str, length: int = 12) -> str:
    """Return the beginning of a long id or digest."""
    return value if len(value) <= length else value[:length] + "…"


# --- forms


@register.inclusion_tag("parts/field.html")
def field(bound: BoundField, **options: Any) -> dict[str, Any]:
    """Render one field: label, input, help, errors."""
    widget = bound.field.widget
    return {
        "field": bound,
        "checkbox": isinstance(widget, CheckboxInput),
        "group": isinstance(widget, RadioSelect),  # check boxes are one, too
        "groups": _groups(bound) if isinstance(widget, RadioSelect) else [],
        "hidden": isinstance(widget, HiddenInput),
        "hint": options.get("hint", True),
        "tall": options.get("tall", False),
    }


def _groups(bound: BoundField) -> list[tuple[str, list[Any]]]:
    """Return a field's choices under the titles of their groups; those without one under none."""
    left = list(bound)
    groups: list[tuple[str, list[Any]]] = []
    for title, inner in bound.field.widget.choices:
        grouped = isinstance(inner, list | tuple)
        if grouped or not groups or groups[-1][0]:
            groups.append((title if grouped else "", []))
        count = len(inner) if grouped else 1
        groups[-1][1].extend(left[:count])
        del left[:count]
    return groups


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: object) -> str:
    """Return the present query string with some values changed; an empty value drops its name."""
    values = context["request"].GET.copy()
    for name, value in changes.items():
        values.pop(name, None)
        if value not in ("", None):
            values[name] = str(value)
    text = values.urlencode()
    return f"?{text}" if text else "?"
