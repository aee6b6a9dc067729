"""Every source with every strategy on every GPU of the demo: admitted, or refused with something that works instead.

Each cell is asked through the request form on the platform that the demo seeds. What is refused is followed as a person
would: by the form's own fix, and where there is none by what the remedy names. What that leads to must be admitted, and
of what is admitted the objects must be none that KServe takes and never starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.utils import timezone

from deployments.findings import Finding, field_of
from deployments.forms.request import DeploymentForm, with_value
from deployments.forms.values import text_of
from deployments.models import Cluster, Credential, Flavor, Node, Principal, Team, User
from deployments.preflight.objects import check_objects
from deployments.preflight.storage import SANDBOX_STORAGE
from deployments.services import previews, requests
from deployments.views.ask import DEFAULTS
from portal.management import platform
from sandbox.nodes import SHAPES
from tests.deployments import factories as make
from tests.deployments.preflighting import SERVED
from tests.every_wish import FLAVORS, GGUFS, GIANT, LARGE, OLDER, PLAN, SOURCES, STRATEGIES, WISHES, Wish, covering

pytestmark = pytest.mark.django_db

DIGEST = "sha256:" + "7" * 64
ARTIFACT, FOLDER, SMALL = "s3://bucket/chat", "s3://bucket/chat/", make.QWEN
FILE = "https://files.example.com/chat.gguf"
GGUF = {"format": "gguf", "quantization": "gguf", "dtype": "float16", "file": "chat.gguf"}
NO_MLFLOW = "Slipway knows of no MLflow here."
TOKEN = "Choose a credential with a token of an account that accepted it."
GATED = ("hf://org/gated", {"result": "gated", "message": "It is gated.", "remedy": TOKEN})

# The address of each kind of source, and what its server is known to have said; None where nobody outside can say.
SAID: dict[str, tuple[str, dict[str, Any] | None]] = {
    "hf": (SMALL, {}),
    "hf fetched ahead": (SMALL, {}),
    "hf gated": GATED,
    "hf gated, with its token": GATED,
    "hf of 70B": ("hf://org/large", {"facts": LARGE}),
    "hf of 405B": ("hf://org/giant", {"facts": GIANT}),
    "hf of GGUF": ("hf://org/files", {"result": "unusable", "message": "Many.", "remedy": f"Name one of them: {FILE}"}),
    "s3": (ARTIFACT, {"facts": {"loads": FOLDER}}),
    "s3 fetched ahead": (ARTIFACT, {"facts": {"loads": FOLDER}}),
    "s3 GGUF": ("s3://bucket/chat.gguf", {"facts": GGUF}),
    "gs": ("gs://bucket/chat", {}),
    "pvc": ("pvc://claim/chat", None),
    "pvc GGUF": ("pvc://claim/chat.gguf", None),
    "oci": (f"oci://registry.example.com/models/chat@{DIGEST}", None),
    "oci by tag": ("oci://registry.example.com/models/chat:1.0", None),
    "https": ("https://files.example.com/chat.tar.gz", {}),
    "https GGUF": (FILE, {"facts": GGUF}),
    "mlflow": ("models:/chat/3", {"facts": {"loads": FOLDER}}),
    "mlflow to gs": ("models:/chat/4", {"facts": {"loads": "gs://bucket/chat"}}),
    "mlflow, none": (
        "models:/chat/5",
        {"result": "unusable", "message": NO_MLFLOW, "remedy": "Name the artifact itself, or have an admin tell."},
    ),
    "model registry": ("model-registry://chat/v3", {"facts": {"loads": FOLDER}}),
}
# What else is typed for some of them.
BESIDE: dict[str, dict[str, str]] = {
    "hf fetched ahead": {"source_cache": "claim"},
    "hf gated, with its token": {"credential": "token"},
    "s3 fetched ahead": {"source_cache": "claim"},
}
# Both roles of the form's preset hold eight GPUs from the start; of H100s there are four.
TOO_FEW = {("disaggregated", "h100-80gb")}
MOST_STEPS = 6

# What a person does where no button does it, by the code of what was refused: words of the remedy, and the change.
BY_HAND: dict[str, tuple[str, Callable[[Finding], dict[str, str]]]] = {
    "source_gated": ("Choose a credential", lambda said: {"credential": "token"}),
    "source_unusable": ("Name ", lambda said: {"source_uri": address_in(said.remedy) or ARTIFACT}),
    "source_not_pinned": (
        "Write the digest",
        lambda said: {"source_uri": f"oci://registry.example.com/models/chat@{DIGEST}"},
    ),
    "memory": ("choose a smaller model", lambda said: {"source_uri": SMALL}),
}


def address_in(text: str) -> str:
    found = re.search(r"\S+://\S+", text)
    return found[0] if found else ""


@pytest.fixture
def search(settings: Any) -> Team:
    """A team on the platform of the demo, as its watcher knows the cluster."""
    settings.SLIPWAY_SANDBOX = True
    settings.SLIPWAY_OCI_REGISTRIES = ["registry.example.com/models"]
    platform.make_flavors(PLAN["flavors"])
    platform.make_profiles()
    for row in PLAN["engines"]:
        platform.add_engine(**row)
    groups = {**SERVED, "leaderworkerset.x-k8s.io": ("v1",)}
    seen = {
        "seen_at": timezone.now(),
        "version": "v1.36.2",
        "capabilities": {"groups": groups, "storage": SANDBOX_STORAGE},
    }
    cluster = Cluster.objects.create(name="main", **seen)
    for shape in SHAPES.values():
        card, gpus = shape.gpu, shape.gpus
        has = {"product": card.product, "memory_mib": card.memory_mib, "capacity": gpus, "allocatable": gpus}
        Node.objects.create(cluster=cluster, name=shape.name, ready=True, **has)
    team = make.make_team("search")
    for flavor in Flavor.objects.all():
        make.make_grant(team, flavor, 8)
    alice = make.make_user("alice", team=team)
    token = Credential.objects.create(team=team, name="token", kind=Credential.Kind.HF, created_by=alice)
    value = {"number": 1, "namespace": team.namespace, "name": "slipway-token-1", "uid": "u", "entered_by": alice}
    token.current = token.versions.create(**value)
    token.save()
    usual = {**make.make_check().facts, "download_bytes": 15_242_702_000}
    for uri, said in SAID.values():
        if said is not None:
            commit = make.COMMIT if uri.startswith("hf://") else ""
            make.make_check(uri, commit=commit, **{**said, "facts": {**usual, **said.get("facts", {})}})
    return team


@pytest.fixture
def alice(search: Team) -> Principal:
    """A member of it."""
    return make.principal(User.objects.get(username="alice"))


@pytest.mark.parametrize("source", SOURCES)
def test_a_wish_is_admitted_or_what_is_refused_names_what_works(search: Team, alice: Principal, source: str):
    mine = [wish for wish in WISHES if wish.source == source]
    at_once = {wish for wish in mine if followed(alice, search, typed(wish)) == 0}

    assert at_once == {wish for wish in mine if wish.admitted and (wish.strategy, wish.flavor) not in TOO_FEW}


@pytest.mark.parametrize("source", sorted(GGUFS))
def test_the_newest_engine_sends_a_gguf_file_to_the_older_one(search: Team, alice: Principal, source: str):
    for strategy in SOURCES[source]:
        data = {**typed(Wish(source, strategy, "l4-24gb")), "profile": "vllm-0.32.0"}
        form = DeploymentForm(data, principal=alice)
        answer = requests.preflight(principal=alice, team=search, name="chat", spec=form.spec)
        (refused,) = (finding for finding in answer.findings if finding.is_error)
        assert (refused.code, refused.field, refused.value) == ("gguf_engine", "profile", OLDER)
        assert followed(alice, search, data) == 1


def test_without_keda_the_same_wishes_are_admitted(search: Team, alice: Principal):
    """The other ground of the demo has KServe's controllers alone."""
    cluster = Cluster.objects.get()
    del cluster.capabilities["groups"]["keda.sh"]
    cluster.save()
    for strategy in ("standard", "multi-node"):
        assert followed(alice, search, {**typed(Wish("hf", strategy, "l4-24gb")), "replicas_max": "2"}) == 0


def test_the_table_speaks_of_every_wish_once() -> None:
    admitted = [wish for wish in WISHES if wish.admitted]
    refused = [wish for wish in WISHES if not wish.admitted]

    assert len(set(WISHES)) == len(SOURCES) * len(STRATEGIES) * len(FLAVORS) == len(admitted) + len(refused)
    assert {wish.source for wish in WISHES} == set(SAID)
    # Something is admitted with every strategy and on every GPU, and each strategy that a source is said to take.
    assert {(wish.strategy, wish.flavor) for wish in admitted} == set(product(STRATEGIES, FLAVORS))
    assert {(wish.source, wish.strategy) for wish in admitted} == {
        (source, strategy) for source, takes in SOURCES.items() for strategy in takes
    }


@pytest.mark.parametrize("admitted", [True, False])
def test_a_few_of_them_cover_every_pair(admitted: bool) -> None:
    wishes = [wish for wish in WISHES if wish.admitted is admitted]
    chosen = covering(wishes)

    assert set(chosen) <= set(wishes)
    assert len(chosen) < len(wishes) / 2
    for first, second in (("source", "strategy"), ("source", "flavor"), ("strategy", "flavor")):
        pairs = {(getattr(wish, first), getattr(wish, second)) for wish in wishes}
        assert {(getattr(wish, first), getattr(wish, second)) for wish in chosen} == pairs
    assert chosen == covering(wishes)


def typed(wish: Wish) -> dict[str, str]:
    """The form as a person fills it in for one wish."""
    return DEFAULTS | wish.typed({"source_uri": SAID[wish.source][0], **BESIDE.get(wish.source, {})})


def followed(alice: Principal, team: Team, data: dict[str, str]) -> int:
    """How many remedies lead from a form to one that is admitted, whose objects are then looked at."""
    for step in range(MOST_STEPS + 1):
        form = DeploymentForm(data, principal=alice)
        assert form.spec is not None, form.errors
        answer = requests.preflight(principal=alice, team=team, name="chat", spec=form.spec)
        refused = [finding for finding in answer.findings if finding.is_error]
        if not refused and data["flavor"] != FLAVORS[0]:
            return step  # GPUs differ in nothing but where pods stand.
        if not refused:
            built = previews.preview(principal=alice, team=team, name="chat", spec=form.spec)
            assert built.pinned
            assert check_objects(built.objects) == []
            return step
        for finding in refused:
            assert finding.code
            assert finding.field in form.fields, finding
            assert finding.message
            assert finding.remedy, finding
        data = as_told(data, refused)
    raise AssertionError(f"Not admitted after {MOST_STEPS} steps: {refused}")


def as_told(data: dict[str, str], refused: list[Finding]) -> dict[str, str]:
    """The form with the first remedy carried out that a button offers; else by hand, as its words say."""
    for finding in refused:
        if finding.value is not None:
            for pointer, value in ((finding.pointer, finding.value), *finding.also):
                data = with_value(data, field_of(pointer), "" if value is None else text_of(value))
            return data
    words, change = BY_HAND[refused[0].code]
    assert words in refused[0].remedy
    return {**data, **change(refused[0])}
