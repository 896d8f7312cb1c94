"""What the eye needs: contrast by the numbers, words with every colour, times people understand."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.template import Context, Template

from keys.states import KeyState, VersionState
from kms_console.web import wording
from kms_console.web.templatetags.console import moment, pretty, relative

CONSOLE = Path(__file__).resolve().parents[2] / "kms_console" / "static" / "console"
TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
TEXT_ON = [
    *[(text, ground) for text in ("text", "muted") for ground in ("ground", "surface", "sunken", "hover")],
    ("accent", "surface"), ("accent", "ground"), ("accent", "hover"), ("accent-strong", "accent-ground"),
    ("on-accent", "accent"), ("on-accent", "accent-strong"), ("surface", "bad-strong"),
    *[(tone, f"{tone}-ground") for tone in ("ok", "warn", "bad", "note", "calm")],
    *[("text", f"{tone}-ground") for tone in ("ok", "warn", "bad", "note")],
    ("bad", "surface"), ("bad", "bad-ground"),
]  # fmt: skip
# Borders of controls, the focus ring and bars of charts need 3:1 (WCAG 1.4.11).
SHAPES_ON = [
    ("control", "surface"), ("focus", "surface"), ("focus", "ground"), ("accent", "surface"),
    ("bad-strong", "surface"), ("warn", "surface"),
]  # fmt: skip


def tokens() -> dict[str, dict[str, str]]:
    css = (CONSOLE / "tokens.css").read_text()
    light, _, dark = css.partition("@media (prefers-color-scheme: dark)")
    found = {"light": dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))}
    found["dark"] = found["light"] | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))
    return found


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_aa_asks(scheme: str) -> None:
    colours = tokens()[scheme]
    for text, ground in TEXT_ON:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for shape, ground in SHAPES_ON:
        assert contrast(colours[shape], colours[ground]) >= 3, (shape, ground)


def test_only_the_tokens_name_a_colour() -> None:
    for sheet in CONSOLE.glob("*.css"):
        if sheet.name != "tokens.css":
            assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[ ;])", sheet.read_text()) == [], sheet.name


def test_every_state_is_told_by_an_icon_and_a_word_besides_its_colour() -> None:
    for kind, values in {"key": KeyState, "version": VersionState}.items():
        for value in values:
            html = Template("{% badge kind value %}").render(
                Context({"kind": kind, "value": value})
            )
            assert "<svg" in html
            assert wording.state(kind, value)[2] in html
    assert len({wording.state("version", value)[2] for value in VersionState}) == len(VersionState)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (-70, "1 minute ago"),
        (3 * 3600, "in 3 hours"),
        (12 * 86400 + 60, "in 12 days"),
        (-400 * 86400, "13 months ago"),
        (4 * 365 * 86400, "in 4 years"),
    ],
)
def test_times_are_told_as_people_tell_them(seconds: int, words: str) -> None:
    now = datetime(2027, 1, 31, 12, tzinfo=UTC)
    assert relative(now + timedelta(seconds=seconds), now) == words


def test_a_time_has_its_exact_moment_in_its_title() -> None:
    html = moment(datetime(2027, 1, 31, 12, 5, 9, tzinfo=UTC))
    assert 'title="2027-01-31 12:05:09 UTC"' in html
    assert "31 Jan 2027, 12:05" in html
    assert moment(None) == ""


def test_values_of_a_request_read_like_prose() -> None:
    assert pretty(True) == "yes"
    assert pretty(["encrypt", "sign"]) == "encrypt, sign"
    assert pretty({}) == "—"
    assert pretty({"m": 2}) == '{\n  "m": 2\n}'


def test_no_template_has_inline_style_script_or_turns_escaping_off() -> None:
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text()
        assert not re.search(
            r"<style|style=|<script(?! src)|\son\w+=|\|safe|autoescape off", text
        ), path
