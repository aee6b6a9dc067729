"""What a server answered, and what of it later requests need: uids, versions, the rest of a list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.differential.sequences import (
    CONTINUE,
    HARD,
    NAMESPACE,
    OLD_VERSION,
    UID,
    UNUSED,
    VERSION,
    Object,
    Step,
    place_of,
)


@dataclass
class Answer:
    """What a server answered: a status, an object (a Status, a list, ...) and its warnings."""

    status: int
    body: Any
    warnings: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """All that a server said to one sequence; `events` are (type, object) pairs."""

    answers: list[Answer] = field(default_factory=list)
    events: list[tuple[str, Object]] = field(default_factory=list)


class Memory:
    """What a server said of each object of one sequence, first and last."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.first: dict[tuple[str, str], Object] = {}
        self.last: dict[tuple[str, str], Object] = {}
        self.page = ""

    def note(self, step: Step, answer: Answer) -> None:
        """Remember the object that a step was answered with."""
        body = answer.body
        tried = step.query.get("dryRun") or (isinstance(step.body, dict) and step.body.get("dryRun"))
        if not isinstance(body, dict) or answer.status >= 400 or tried:
            return
        self.page = (body.get("metadata") or {}).get("continue", "") if step.verb == "list" else self.page
        if body.get("kind") == step.kind:
            key = step.kind, step.name
            self.first.setdefault(key, body)
            self.last[key] = body

    def fill(self, value: Any, step: Step) -> Any:
        """Return a copy of a body with its tokens replaced."""
        if isinstance(value, dict):
            return {name: self.fill(child, step) for name, child in value.items()}
        if isinstance(value, list):
            return [self.fill(child, step) for child in value]
        if isinstance(value, str) and value.startswith("@"):
            return self._token(value, step)
        return value

    def _token(self, text: str, step: Step) -> Any:
        word, *where = text.split()
        if word == NAMESPACE:
            return self.namespace
        if word == CONTINUE:
            return self.page
        kind, name = where or (step.kind, step.name)
        found = (self.first if word == OLD_VERSION else self.last).get((kind, name), {})
        if word in (HARD, UNUSED):
            hard = (found.get("spec") or {}).get("hard") or {}
            return hard if word == HARD else dict.fromkeys(hard, "0")
        seen = found.get("metadata", {})
        if word == UID:
            return str(seen.get("uid", "00000000-0000-4000-8000-000000000000"))
        if word in (VERSION, OLD_VERSION):
            return str(seen.get("resourceVersion", "1"))
        return text


class Places:
    """What a server said of objects and lists while a recording was played, by their paths."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Object]] = {}
        self._lists: dict[str, str] = {}

    def learn(self, path: str, answer: Answer) -> None:
        """Remember the objects that an answer tells of."""
        body = answer.body
        if answer.status >= 400 or not isinstance(body, dict):
            return
        if "items" in body:
            self._lists[path] = body["metadata"]["resourceVersion"]
        for obj in body.get("items", [body]):
            meta = obj.get("metadata") or {}
            if "uid" in meta:
                seen = self._seen.setdefault(place_of(path, meta), [])
                if not seen or seen[-1]["resourceVersion"] != meta["resourceVersion"]:
                    seen.append(meta)

    def fill(self, value: Any) -> Any:
        """Return a copy of a request with its tokens replaced."""
        if isinstance(value, dict):
            return {name: self.fill(child) for name, child in value.items()}
        if isinstance(value, list):
            return [self.fill(child) for child in value]
        return self._token(value) if isinstance(value, str) and value.startswith("@") else value

    def _token(self, text: str) -> str:
        word, path = text.split()
        if word == "@list":
            return self._lists[path]
        seen = self._seen[path]
        return str(seen[-1]["uid"] if word == "@uid" else seen[-2 if word == "@old" else -1]["resourceVersion"])
