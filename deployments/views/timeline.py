"""What happened to one deployment, told once: Slipway's own timeline, and what the cluster said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from deployments.kube.observe import EventView
from deployments.models import Deployment, Event

State = Deployment.State

ON_ITS_WAY = frozenset({State.QUEUED, State.APPLYING, State.DOWNLOADING, State.STARTING})
SHOWN_FIRST = 12
READ = 120
ONE_GPU = re.compile(r"\b1 GPUs\b")
DIGEST = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")
# Warnings that KServe's controllers write on every cluster without Istio: nothing is wrong.
NOISE = frozenset({"VirtualServiceCRDNotFound"})


@dataclass(frozen=True)
class Line:
    """One line of the timeline; `times` counts how often the same happened in a row."""

    at: datetime
    level: str
    text: str
    who: str = ""
    times: int = 1


@dataclass(frozen=True)
class Said:
    """What the cluster said of one object, warnings first."""

    kind: str
    name: str
    events: list[EventView] = field(default_factory=list)

    @property
    def warnings(self) -> int:
        """How many of its messages are warnings."""
        return sum(1 for event in self.events if event.type == "Warning")

    @property
    def last_seen(self) -> datetime | None:
        """When the newest of them was seen."""
        return max((event.last_seen for event in self.events if event.last_seen), default=None)


def told(events: Iterable[Event]) -> list[Line]:
    """The timeline, newest first; of a way up only its last step stays, and a loop of failures is one line."""
    lines: list[Line] = []
    # The newest line that tells a state, and whether only steps of a way up came after the last weighty one.
    moving = False
    weighty = -1
    for event in events:
        if event.kind == "state":
            on_its_way = event.data.get("to") in ON_ITS_WAY
            if on_its_way and moving:
                continue
            text = _text(event)
            if not on_its_way and weighty >= 0 and lines[weighty].text == text and len(lines) - weighty <= 2:
                lines[weighty:] = [replace(lines[weighty], times=lines[weighty].times + 1)]
                moving = False
                continue
            moving = on_its_way
            weighty = weighty if on_its_way else len(lines)
        else:
            weighty = -1
        lines.append(Line(event.created_at, event.level, _text(event), _who(event)))
    return lines


def said(events: Iterable[EventView]) -> list[Said]:
    """What the cluster said, folded per object: those with warnings first, then the newest."""
    found: dict[tuple[str, str], list[EventView]] = {}
    for event in events:
        kind = "Normal" if event.reason in NOISE else event.type
        short = replace(event, type=kind, message=DIGEST.sub(r"\1…", event.message))
        found.setdefault((event.kind, event.name), []).append(short)
    groups = [
        Said(kind, name, sorted(rows, key=lambda row: (row.type != "Warning", -_moment(row.last_seen))))
        for (kind, name), rows in found.items()
    ]
    return sorted(groups, key=lambda group: (not group.warnings, -_moment(group.last_seen)))


def _text(event: Event) -> str:
    text = ONE_GPU.sub("1 GPU", event.message)
    name = _name(event)
    # Older lines say the user name where a page says the name of the person.
    if event.actor is None:
        return text
    return re.sub(rf"\bby {re.escape(event.actor.username)}(?=[:.,]|$)", lambda _: f"by {name}", text)


def _who(event: Event) -> str:
    """The actor, unless the message already names them."""
    name = _name(event)
    return "" if name in _text(event) else name


def _name(event: Event) -> str:
    return (event.actor.get_full_name() or event.actor.username) if event.actor else ""


def _moment(value: datetime | None) -> float:
    return (value or datetime(1970, 1, 1, tzinfo=UTC)).timestamp()
