"""How the table of routes is written: who passes with which method, and what all others are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Body = Callable[[Any], dict[str, Any]]

SAFE = ("GET", "HEAD", "OPTIONS")
# Groups of people. A former member and one who may only look into Django's admin are strangers.
MEMBERS = "member lead"
LEADS = "lead admin"
TEAM = "member lead admin"
EVERYBODY = "stranger member lead admin"


@dataclass(frozen=True)
class Rule:
    """One method. `passes` are let in; `told` see the thing and hear why not: 403 from the API, words on a page.

    For `unknown` what their body names is not there (422); `idle` are answered, and nothing comes of it. To everybody
    else the address is not there (404). A token passes where its person does, with `scope` and in its teams. `but`
    names principals with a status of their own. With `body` somebody who passes must get something done.
    """

    passes: frozenset[str]
    told: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    scope: str = ""
    but: dict[str, int] = field(default_factory=dict)
    body: Body | None = None
    # With its body only somebody beside the walk gets something done: who has a password, or wrote the revision.
    by_others: bool = False


@dataclass(frozen=True)
class Row:
    """One address."""

    kind: str  # page, api, admin, open (nobody has to sign in), closed (nobody finds it)
    rules: dict[str, Rule] = field(default_factory=dict)
    of: str = ""  # what its {pk} is in the world of the test

    def rule(self, method: str) -> Rule | None:
        """The rule for a method; HEAD follows GET."""
        if self.kind == "admin":
            return self.rules.get(method, self.rules["GET"])
        return self.rules.get("GET" if method == "HEAD" else method)


def may(
    passes: str,
    *,
    told: str = "",
    unknown: str = "",
    idle: str = "",
    scope: str = "",
    body: Body | None = None,
    by_others: bool = False,
    **but: int,
) -> Rule:
    """A rule; principals with a status of their own by name, `_` for `-`."""
    by_name = {name.replace("_", "-"): status for name, status in but.items()}
    groups = [frozenset(names.split()) for names in (passes, told, unknown, idle)]
    return Rule(*groups, scope, by_name, body, by_others or not passes)


def page(of: str = "", **methods: str | Rule) -> Row:
    """A page: who is not signed in is sent to the sign-in, tokens open none."""
    return Row("page", _rules(methods), of)


def api(of: str = "", **methods: str | Rule) -> Row:
    """An address of the REST API."""
    return Row("api", _rules(methods), of)


def admin(**methods: str | Rule) -> Row:
    """A page of Django's admin. Its views do not ask for the method: what is not named is as GET, and never writes."""
    return Row("admin", _rules(methods))


def opened(**methods: str | Rule) -> Row:
    """A page for which nobody has to sign in."""
    return Row("open", _rules(methods))


CLOSED = Row("closed")


def _rules(methods: dict[str, str | Rule]) -> dict[str, Rule]:
    return {name: may(rule) if isinstance(rule, str) else rule for name, rule in methods.items()}
