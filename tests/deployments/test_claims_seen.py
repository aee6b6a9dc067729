"""Volume claims that teams make: the watcher follows their names, and a source in one that is not there is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.kube import slim
from deployments.kube.kinds import Ref
from deployments.kube.reflector import Changed, Listed
from deployments.models import Cluster, Principal, Team, User
from deployments.services import requests, tokens
from deployments.watcher import heart, seen
from deployments.watcher.world import CLAIM, World
from tests.deployments import factories as make
from tests.deployments.preflighting import SERVED
from tests.deployments.test_watcher_world import decoded
from tests.deployments.wishes import spec_json

LISTED_AT = timezone.now()


def claim(name: str, namespace: str = "ns", **labels: str) -> tuple[tuple[str, str], seen.ClaimSeen]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"u-{name}", "labels": labels}
    return (namespace, name), seen.claim(decoded(slim.Named, {"metadata": metadata}))


def listed(*claims: tuple[tuple[str, str], seen.ClaimSeen]) -> Listed[Any]:
    return Listed(CLAIM, dict(claims), LISTED_AT)


def test_claims_of_everybody_are_followed_and_ours_alone_are_watched_over() -> None:
    (kind,) = [item for item in seen.followed() if item.kind.kind == CLAIM]
    assert (kind.ours, kind.view, kind.essential) == (False, seen.claim, False)
    world = World(install="here")
    ours = {"slipway.dev/install": "here"}
    world.take(listed(claim("models"), claim("kept", **ours), claim("theirs", **{"slipway.dev/install": "elsewhere"})))

    assert world.claims_in(["ns", "other"]) == {"ns": ["kept", "models", "theirs"], "other": []}
    assert world.claims_in(["ns", "other"], ours=True) == {"ns": ["kept", "theirs"], "other": []}
    assert list(world.owned) == [Ref("v1", CLAIM, "ns", "kept")]
    world.suspects.clear()
    world.take(Changed(CLAIM, ("ns", "models"), None))
    world.take(Changed(CLAIM, ("ns", "kept"), None))
    assert world.suspects == {Ref("v1", CLAIM, "ns", "kept"): "gone"}
    assert world.claims_in(["ns"]) == {"ns": ["theirs"]}


def test_only_what_comes_or_goes_is_written() -> None:
    world = World()
    world.take(listed(claim("models")))
    assert world.claims_changed
    world.claims_changed = False
    key, item = claim("models", note="changed")
    world.take(Changed(CLAIM, key, item))
    assert not world.claims_changed
    world.take(Changed(CLAIM, key, None))
    assert world.claims_changed


def test_while_claims_are_not_followed_nothing_is_known_of_them() -> None:
    world = World()
    assert world.claims_in(["ns"]) is None
    world.take(listed())
    assert world.claims_in(["ns"]) == {"ns": []}
    world.claims_changed = False
    world.lose(CLAIM)
    assert (world.claims_changed, world.claims_in(["ns"])) == (True, None)


@pytest.fixture
def team(db: None) -> Team:
    """A team on a cluster that the watcher has just seen."""
    Cluster.objects.create(name="main", seen_at=timezone.now(), capabilities={"groups": SERVED, "storage": []})
    found = make.make_team("search")
    make.make_grant(found, make.make_flavor("l4-24gb"), 8)
    make.make_user("alice", team=found)
    make.make_profile()
    return found


def refused(team: Team, uri: str, code: str = "claim_unknown") -> list[Any]:
    alice: Principal = make.principal(User.objects.get(username="alice"))
    spec = spec_json(flavor="l4-24gb", source={"uri": uri})
    answer = requests.preflight(principal=alice, team=team, name="chat", spec=spec)
    return [finding for finding in answer.findings if finding.code == code]


def test_a_claim_that_is_not_there_is_refused_with_those_that_are(team: Team) -> None:
    row = heart.main_cluster()
    world = World()
    world.take(listed(claim("models", team.namespace), claim("more", team.namespace), claim("secret", "elsewhere")))
    heart.write_claims(row, world.claims_in(heart.team_namespaces()))

    (finding,) = refused(team, "pvc://modles/chat")

    assert (finding.field, finding.is_error) == ("source_uri", True)
    assert finding.remedy.endswith("If none was made, these are there: models, more.")
    assert refused(team, "pvc://models/chat") == []
    # What else is known of the cluster stays, and a look at it leaves the claims.
    assert Cluster.objects.get().capabilities["groups"] == {name: list(served) for name, served in SERVED.items()}
    heart.record(row, heart.Beat(version="v1.36.2", uid="u", groups={"a": ["v1"]}), blind="")
    assert [item.code for item in refused(team, "pvc://modles/chat")] == ["claim_unknown"]


def test_a_claim_of_weights_fetched_ahead_is_no_source_and_no_way_out(team: Team) -> None:
    row, kept = heart.main_cluster(), {"slipway.dev/install": "here"}
    world = World(install="here")
    world.take(listed(claim("models", team.namespace), claim("chat-weights-d28c125060", team.namespace, **kept)))
    heart.write_claims(row, world.claims_in([team.namespace]), world.claims_in([team.namespace], ours=True))

    (finding,) = refused(team, "pvc://x/y")
    assert finding.remedy.endswith("these are there: models.")
    (finding,) = refused(team, "pvc://chat-weights-d28c125060/model", "claim_of_a_cache")
    assert (finding.field, finding.is_error) == ("source_uri", True)
    assert finding.remedy == "Name where that deployment's model comes from. The team's own: models."
    assert "goes when that is deleted" in finding.message
    heart.write_claims(row, {team.namespace: ["chat-weights-1"]}, {team.namespace: ["chat-weights-1"]})
    (finding,) = refused(team, "pvc://x/y")
    assert "create it first, or use another source" in finding.remedy
    # Nobody saw the cluster for a while: what was Slipway's own then is so still.
    Cluster.objects.update(seen_at=None)
    assert refused(team, "pvc://chat-weights-1/model", "claim_of_a_cache")


def test_nobody_is_refused_for_a_claim_that_may_be_there(team: Team) -> None:
    row = heart.main_cluster()
    for known in (None, {"elsewhere": []}):
        heart.write_claims(row, known)
        assert refused(team, "pvc://models/chat") == []
    heart.write_claims(row, {team.namespace: []})
    (finding,) = refused(team, "pvc://models/chat")
    assert "create it first, or use another source" in finding.remedy
    Cluster.objects.update(seen_at=None)
    assert refused(team, "pvc://models/chat") == []


def test_a_claim_made_a_moment_ago_is_not_said_to_be_missing_but_not_yet_seen(team: Team) -> None:
    heart.write_claims(heart.main_cluster(), {team.namespace: ["models"]})
    Cluster.objects.update(seen_at=timezone.now() - timedelta(seconds=12))
    (finding,) = refused(team, "pvc://made-just-now/chat")
    assert finding.message == (
        "The team's namespace had no volume claim “made-just-now” when it was looked at 12 seconds ago."
    )
    assert finding.remedy.startswith("One that was made since is seen in a moment: ask again then.")


def test_the_form_asks_again_by_itself_and_keeps_what_is_typed(team: Team, client: Any) -> None:
    heart.write_claims(heart.main_cluster(), {team.namespace: []})
    client.force_login(User.objects.get(username="alice"))
    typed = {"team": team.slug, "name": "chat", "source_uri": "pvc://made-just-now/chat", "flavor": "l4-24gb"}
    asking = f'hx-post="{reverse("deployment-preflight")}" hx-trigger="every 5s"'
    assert asking in client.post(reverse("deployment-preflight"), typed).content.decode()
    page = client.post(reverse("deployment-create"), typed)
    assert page.status_code == 422
    assert asking in page.content.decode()
    assert page.context["values"]["source_uri"] == "pvc://made-just-now/chat"

    heart.write_claims(heart.main_cluster(), {team.namespace: ["made-just-now"]})
    assert "every 5s" not in client.post(reverse("deployment-preflight"), typed).content.decode()


def test_a_program_is_told_when_to_ask_again_and_may_with_the_same_key(team: Team, client: Any) -> None:
    heart.write_claims(heart.main_cluster(), {team.namespace: []})
    user = User.objects.get(username="alice")
    _, token = tokens.create(principal=make.principal(user), name="ci", scopes=["write"])
    body = {"team": team.slug, "name": "chat", "spec": spec_json(flavor="l4-24gb", source={"uri": "pvc://new/chat"})}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "once-and-only-once"}

    def ask(**spec: Any) -> Any:
        sent = {**body, "spec": {**body["spec"], **spec}}
        return client.post("/api/v1/deployments/", sent, content_type="application/json", headers=headers)

    first = ask()
    assert (first.status_code, first.headers["Retry-After"]) == (422, "5")
    assert [item["code"] for item in first.json()["errors"]] == ["claim_unknown"]
    # Beside an error that time does not change nobody is told to wait.
    assert "Retry-After" not in ask(flavor="none-of-that-name").headers
    heart.write_claims(heart.main_cluster(), {team.namespace: ["new"]})
    assert ask().status_code == 201
