"""How pages say states, times, sizes and numbers: one place for each."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from deployments.models import User

register = template.Library()

# Every state has a word, a tone and a shape; never the colour alone.
STATES: dict[str, tuple[str, str, str]] = {
    "Draft": ("Draft", "grey", "ring"),
    "AwaitingApproval": ("Waits for approval", "purple", "diamond"),
    "AwaitingQuota": ("Waits for quota", "purple", "diamond"),
    "Queued": ("Queued", "azure", "turning"),
    "Applying": ("Applying", "azure", "turning"),
    "Downloading": ("Downloading", "azure", "turning"),
    "Starting": ("Starting", "azure", "turning"),
    "Running": ("Running", "green", "dot"),
    "Degraded": ("Degraded", "yellow", "triangle"),
    "Stalled": ("Stalled", "yellow", "triangle"),
    "Asleep": ("Asleep", "grey", "moon"),
    "Blocked": ("Blocked", "red", "octagon"),
    "Failed": ("Failed", "red", "cross"),
    "Stopping": ("Stopping", "azure", "turning"),
    "Stopped": ("Stopped", "grey", "square"),
    "Deleting": ("Deleting", "azure", "turning"),
    "Deleted": ("Deleted", "grey", "square"),
    "Rejected": ("Rejected", "red", "cross"),
    "Expired": ("Expired", "grey", "ring"),
}
LEVELS: dict[str, tuple[str, str]] = {
    "info": ("info-circle", "grey"),
    "good": ("circle-check", "green"),
    "warning": ("alert-triangle", "yellow"),
    "bad": ("alert-circle", "red"),
}
SEVERITIES: dict[str, tuple[str, str]] = {
    "error": ("alert-circle", "red"),
    "warning": ("alert-triangle", "yellow"),
    "info": ("info-circle", "grey"),
    "success": ("circle-check", "green"),
    "debug": ("info-circle", "grey"),
}
# Sides of a diff: the tag of a line, and its end.
LINES: dict[str, tuple[str, str]] = {"old": ("del", "del"), "new": ("ins", "ins"), "both": ('span class="ctx"', "span")}
PLACE = 'span class="place"', "span"


@register.simple_tag
def once() -> SafeString:
    """The nonce of a form that makes something: sent twice, it makes one (`deployments.views.once`)."""
    return format_html('<input type="hidden" name="once" value="{}" autocomplete="off">', secrets.token_urlsafe(24))


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """A line icon in the colour of its text; it says nothing to a screen reader."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#i-{}"/></svg>',
        extra,
        static("vendor/icons/icons.svg"),
        name,
    )


@register.simple_tag
def shape(name: str) -> SafeString:
    """The small shape that stands for a state beside its word."""
    return format_html('<svg aria-hidden="true"><use href="{}#{}"/></svg>', static("shapes.svg"), name)


@register.simple_tag
def state_badge(state: str, word: str = "", size: str = "") -> SafeString:
    """A deployment's state as word, colour and shape; `word` may say more, as "Downloading 63 %"."""
    label, tone, form = STATES.get(state, (state, "grey", "ring"))
    return badge(tone, form, word or label, size)


@register.simple_tag
def badge(tone: str, form: str, word: str, size: str = "") -> SafeString:
    """A pill of any tone and shape."""
    return format_html('<span class="state t-{} {}" data-shape="{}">{}{}</span>', tone, size, form, shape(form), word)


@register.filter
def state_tone(state: str) -> str:
    """The tone of a state, as green."""
    return STATES.get(state, ("", "grey", ""))[1]


@register.filter
def state_word(state: str) -> str:
    """The word of a state, as people read it."""
    return STATES.get(state, (state, "", ""))[0]


@register.filter
def level_icon(level: str) -> str:
    """The icon of a timeline level or a finding's severity."""
    return LEVELS.get(level, SEVERITIES.get(level, ("info-circle", "grey")))[0]


@register.filter
def level_tone(level: str) -> str:
    """The tone of a timeline level, a finding's severity or a message tag."""
    return LEVELS.get(level, SEVERITIES.get(level, ("info-circle", "grey")))[1]


@register.filter
def person(user: User | None, nobody: str = "") -> str:
    """What people call somebody: the full name, or the user name; `nobody` where there is none."""
    return (user.get_full_name() or user.get_username()) if user else nobody


@register.filter
def ago(value: datetime | str | None) -> SafeString | str:
    """A time, relative up to a day and exact on hover (the browser turns it into its own zone)."""
    moment = _moment(value)
    if moment is None:
        return "–"
    age = timezone.now() - moment
    text = f"{short_span(age)} ago" if timedelta() <= age < timedelta(days=1) else f"{moment:%-d %b %Y}"
    return format_html(
        '<time datetime="{}" data-form="ago" title="{}">{}</time>', moment.isoformat(), _exact(moment), text
    )


@register.filter
def clock(value: datetime | str | None) -> SafeString | str:
    """A time of day; before yesterday the date."""
    moment = _moment(value)
    if moment is None:
        return "–"
    recent = timezone.now() - moment < timedelta(days=1)
    text = f"{moment:%H:%M:%S}" if recent else f"{moment:%-d %b %Y}"
    return format_html(
        '<time datetime="{}" data-form="clock" title="{}">{}</time>', moment.isoformat(), _exact(moment), text
    )


@register.filter
def span(value: Any) -> str:
    """A length of time in seconds (or a timedelta) as people say it: 41 s, 3 min, 2 h."""
    if isinstance(value, timedelta):
        return short_span(value)
    return short_span(timedelta(seconds=float(value))) if isinstance(value, int | float) else "–"


def short_span(length: timedelta) -> str:
    """41 s, 3 min, 2 h, 3 d: one unit, rounded down."""
    seconds = max(0, int(length.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.filter
def num(value: Any) -> str:
    """A count with thousands marked; a dash for what is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–" if value in (None, "") else str(value)
    return f"{value:,}" if isinstance(value, int) else sig(value)


@register.filter
def sig(value: Any) -> str:
    """A measured number with three significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.{digits}f}"


@register.filter
def gib(value: Any) -> str:
    """Bytes in GiB with three significant digits, without the unit."""
    return sig(value / 1024**3) if isinstance(value, int | float) else "–"


@register.filter
def mib_as_gib(value: Any) -> str:
    """MiB in GiB, without the unit."""
    return sig(value / 1024) if isinstance(value, int | float) else "–"


@register.filter
def epoch_ms(value: datetime | None) -> str:
    """Milliseconds since 1970, for scripts; empty when there is no time."""
    return str(int(value.timestamp() * 1000)) if value else ""


@register.simple_tag
def made() -> str:
    """When this page was made, in milliseconds since 1970: its stream tells what changed since."""
    return epoch_ms(timezone.now())


@register.filter
def model_name(uri: str) -> str:
    """The part of a model address that people call the model: the last one."""
    return str(uri).rstrip("/").rpartition("/")[2] or str(uri)


@register.filter
def pretty_json(value: Any) -> str:
    """JSON with two spaces, for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def in_words(kind: str) -> str:
    """The kind of an event as words: Quota granted."""
    return str(kind).replace("_", " ").capitalize()


@register.filter
def stored(value: Any) -> str:
    """A stored value for people: a dash for none, JSON for what is nested."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@register.filter
def item(mapping: Any, key: Any) -> Any:
    """The value under `key`, or nothing."""
    return mapping.get(key, "") if isinstance(mapping, Mapping) else ""


@register.inclusion_tag("parts/field.html", takes_context=True)
def text_field(context: template.Context, name: str, label: str, **more: str) -> dict[str, Any]:
    """One text field of the request form with its value and its messages; `more` is what parts/field.html expects."""
    found = {"value": context["values"].get(name), "messages": context["fields"][name]["messages"]}
    return {"name": name, "label": label, **found, **more}


@register.simple_tag
def options(offered: Iterable[tuple[str, str]], chosen: str) -> SafeString:
    """The options of a select, each a value and its label. Not a loop of the template: some lists are long."""
    rows = ((value, mark_safe(" selected") if value == chosen else "", label) for value, label in offered)
    return format_html_join("\n", '<option value="{}"{}>{}</option>', rows)


@register.simple_tag
def diff_lines(lines: Iterable[Any]) -> SafeString:
    """Lines of a unified diff (`side`, `text`), each an element of its own inside a `pre`."""
    tagged = ((*(mark_safe(tag) for tag in LINES.get(line.side, PLACE)), line.text) for line in lines)  # noqa: S308
    return format_html_join("", "<{0}>{2}</{1}>", tagged)


@register.inclusion_tag("_bar.html")
def bar(parts: list[Mapping[str, Any]], label: str, thick: str = "") -> dict[str, Any]:
    """A stacked bar from parts {"kind", "value", "label"}; widths are in per mille of the whole."""
    total = sum(max(0.0, float(part["value"])) for part in parts) or 1.0
    drawn, at = [], 0.0
    for part in parts:
        width = max(0.0, float(part["value"])) / total * 1000
        drawn.append({**part, "x": f"{at:.2f}", "width": f"{width:.2f}"})
        at += width
    return {"parts": drawn, "label": label, "thick": thick}


@register.filter
def replicas_asked(spec: Mapping[str, Any]) -> str:
    """How many replicas a stored spec asks for: “1 to 3”, or “2 to 8 prefill and 4 decode”."""
    roles = [name for name in ("prefill", "decode") if isinstance(spec.get(name), Mapping)]
    if not roles:
        return _span(spec)
    return " and ".join(f"{_span(spec[name])} {name}" for name in roles)


def _span(part: Mapping[str, Any]) -> str:
    replicas = part.get("replicas") or {}
    few, most = replicas.get("min", 1), replicas.get("max", 1)
    return f"{few}" if few == most else f"{few} to {most}"


def _moment(value: datetime | str | None) -> datetime | None:
    moment = parse_datetime(value) if isinstance(value, str) and value else value
    if not isinstance(moment, datetime):
        return None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def _exact(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%-d %B %Y, %H:%M:%S %Z}"
