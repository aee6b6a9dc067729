"""The people and things most tests of the domain need."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from deployments.models import Flavor, Team, User
from deployments.services import model_checks
from deployments.sources import Reply
from tests.deployments import factories as make
from tests.deployments.apis import Api


@pytest.fixture
def team(db: None) -> Team:
    """The team search, whose requests an admin approves, with four H100s."""
    return make.make_team("search")


@pytest.fixture
def alice(team: Team) -> User:
    """A lead of search."""
    return make.make_user("alice", team=team, lead=True)


@pytest.fixture
def ann(team: Team) -> User:
    """A member of search."""
    return make.make_user("ann", team=team)


@pytest.fixture
def bob(db: None) -> User:
    """A stranger: lead of another team."""
    return make.make_user("bob", team=make.make_team("labs"), lead=True)


@pytest.fixture
def carol(db: None) -> User:
    """A platform admin."""
    return make.make_user("carol", admin=True)


@pytest.fixture
def h100(team: Team) -> Flavor:
    """A flavor of which search may hold four."""
    flavor = make.make_flavor()
    make.make_grant(team, flavor, 4)
    return flavor


@pytest.fixture
def hub(h100: Flavor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A platform on which Qwen2.5-7B is known, and no other model: the paths that the hub is asked for."""
    make.make_profile()
    make.make_cluster()
    make.make_check()
    asked: list[str] = []

    def answer(path: str) -> Reply:
        asked.append(path)
        return Reply(404)

    monkeypatch.setattr(model_checks, "_get", answer)
    return asked


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Hints are recorded, not sent."""
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr("portal.lib.hints._send", lambda task, pk: sent.append((task, pk)))
    return sent


@pytest.fixture
def spec() -> dict[str, Any]:
    """A spec that search may ask for."""
    return make.a_spec()


@pytest.fixture
def ann_api(ann: User, hub: list[str]) -> Api:
    """A program of ann's, on the platform of `hub`."""
    return Api(ann)


@pytest.fixture
def carol_api(carol: User) -> Api:
    """A program of carol's."""
    return Api(carol)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run a management command on documents written to files; gives back its JSON, also of what is refused."""

    def run(command: str, *arguments: Any) -> Any:
        words = []
        for index, argument in enumerate(arguments):
            if isinstance(argument, dict | list):
                path = tmp_path / f"{index}.json"
                path.write_text(json.dumps(argument))
                argument = path
            words.append(str(argument))
        out = StringIO()
        try:
            call_command(command, *words, stdout=out)
        except CommandError as refused:
            if refused.returncode != 1 or not out.getvalue():
                raise
            answer = json.loads(out.getvalue())
            assert answer["ok"] is False
            return answer
        answer = json.loads(out.getvalue())
        assert answer.get("ok", True) is True
        return answer

    return run
