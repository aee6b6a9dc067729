"""Every wish that the request form admits runs: asked for in the form, approved, serving, answering, and gone again.

SLIPWAY_MATRIX=all plays every wish of the table, and asks for every one that is refused. Without it those are played in
which every pair of source, strategy and GPU stands. `logs/wishes.log` of the ground tells how far it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from deployments.models import Cluster, Flavor, Team
from deployments.services import facts
from portal.management import platform
from sandbox.node.images import model_image
from tests import servers
from tests.deployments import factories as make
from tests.deployments.sealing_keys import add
from tests.every_wish import GIANT, PLAN, SOURCES, WISHES, Wish, covering
from tests.scenarios import timings
from tests.scenarios.stage import SMALL, Stage
from tests.scenarios.test_credentials import GATED, stored
from tests.scenarios.test_disaggregated import admitting
from tests.scenarios.test_sources import BUCKET, CLAIM, MODEL, Google, buckets, fill, opened, serving, website
from tests.scenarios.wishes import Office, Player, played

pytestmark = pytest.mark.django_db

LARGE = "hf://meta-llama/Llama-3.3-70B-Instruct"
ALL = os.environ.get("SLIPWAY_MATRIX") == "all"
STORE, AHEAD = {"credential": "store"}, {"source_cache": "claim"}


@pytest.fixture
def team(db: None) -> Team:
    """The team search on the platform that the demo begins with; a lead approves what it asks for."""
    platform.make_flavors(PLAN["flavors"])
    platform.make_profiles()
    for row in PLAN["engines"]:
        platform.add_engine(**row)
    team = make.make_team("search", policy=Team.Policy.LEAD)
    Team.objects.filter(pk=team.pk).update(namespace=f"search-{uuid4().hex[:5]}")
    team.refresh_from_db()
    for flavor in Flavor.objects.all():
        # What a rollout would take beside it counts, too.
        make.make_grant(team, flavor, 3 * played(flavor))
    return team


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with buckets() as running:
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with website(tmp_path_factory.mktemp("web")) as url:
        yield url


@pytest.mark.timeout(7200 if ALL else 1800)
def test_every_wish_that_is_admitted_runs(stage: Stage, s3: servers.S3, web: str, settings: Any):
    settings.SLIPWAY_SANDBOX, settings.MLFLOW_URL = True, web
    settings.GATEWAY_URL = stage.ground.environment["GATEWAY_URL"]
    stage.driven.until(lambda: (cluster := facts.main_cluster()) and cluster.seen_at and not cluster.trouble)
    stage.driven.until(lambda: Cluster.objects.get().capabilities.get("storage"))
    lead, admin = make.make_user("lead", team=stage.team, lead=True), make.make_user("root", admin=True)
    opened(stage, make.principal(lead), s3, web, settings)
    for name, uri in (("hub", GATED), ("large", LARGE)):
        stored(stage, add(make.principal(lead), stage.team, name, token="hf_of_an_account", test_uri=uri))
    fill(stage, f"{web}/smol.gguf")
    make.make_check("hf://org/giant", facts={**make.make_check().facts, **GIANT})
    sources = lie(web)
    assert set(sources) == set(SOURCES)

    wishes, begun = chosen(), time.monotonic()
    diary = stage.ground.data / "logs/wishes.log"
    player = Player(Office(stage, stage.user, lead, admin), sources, diary)
    with admitting(stage.ground), serving(Google, stage.ground.agents.google_port) as settings.GS_URL:
        player.play(wishes)
    timings.wished(stage.ground.name, summary(player, wishes, time.monotonic() - begun))

    assert player.failed == {}
    assert set(player.ran) == {wish for wish in wishes if wish.admitted}
    assert set(player.refused) == {wish for wish in wishes if not wish.admitted}
    for wish, findings in player.refused.items():
        assert findings, wish
        assert all(said.message and said.remedy and said.field for said in findings), (wish, findings)


def chosen() -> list[Wish]:
    """What is played: a few of those admitted and of those refused that cover every pair, and if wanted the rest."""
    admitted, refused = ([wish for wish in WISHES if wish.admitted is way] for way in (True, False))
    few = [*covering(admitted), *covering(refused)]
    return [*few, *(wish for wish in WISHES if wish not in few)] if ALL else few


def lie(web: str) -> dict[str, dict[str, str]]:
    """What is typed for each kind of source: where it lies on this ground, and what opens it."""
    image = model_image(MODEL, "1.0")
    return {
        "hf": {"source_uri": SMALL},
        "hf fetched ahead": {"source_uri": SMALL, **AHEAD},
        "hf gated": {"source_uri": GATED},
        "hf gated, with its token": {"source_uri": GATED, "credential": "hub"},
        "hf of 70B": {"source_uri": LARGE, "credential": "large"},
        "hf of 405B": {"source_uri": "hf://org/giant"},
        "hf of GGUF": {"source_uri": "hf://org/files"},
        "s3": {"source_uri": f"s3://{BUCKET}/smol", **STORE},
        "s3 fetched ahead": {"source_uri": f"s3://{BUCKET}/smol", **STORE, **AHEAD},
        "s3 GGUF": {"source_uri": f"s3://{BUCKET}/smol.gguf", **STORE},
        "gs": {"source_uri": f"gs://{BUCKET}/smol"},
        "pvc": {"source_uri": f"pvc://{CLAIM}/smol"},
        "pvc GGUF": {"source_uri": f"pvc://{CLAIM}/smol.gguf"},
        "oci": {"source_uri": f"oci://{image.canonical}"},
        "oci by tag": {"source_uri": f"oci://{image.name}:1.0"},
        "https": {"source_uri": f"{web}/smol.tar.gz"},
        "https GGUF": {"source_uri": f"{web}/smol.gguf"},
        "mlflow": {"source_uri": "models:/smol/3", **STORE},
        "mlflow to gs": {"source_uri": "models:/smol/4"},
        "mlflow, none": {"source_uri": "models:/smol/5"},
        "model registry": {"source_uri": "model-registry://smol/v1", **STORE},
    }


def summary(player: Player, wishes: list[Wish], seconds: float) -> str:
    """What was played, in a line."""
    admitted = sum(wish.admitted for wish in WISHES)
    ran, refused = f"{admitted} admitted, {len(player.ran)} of them ran", f"{len(WISHES) - admitted} refused"
    asked = f"{len(player.refused)} of those asked for; {len(wishes)} played in {seconds:.0f} s"
    return f"{len(WISHES)} wishes: {ran}; {refused}, {asked}, {len(player.failed)} failed"
