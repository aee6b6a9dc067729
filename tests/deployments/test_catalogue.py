"""The catalogue: its presets fit, its page and its API say what the quota takes, and admins alone change it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.urls import reverse

from deployments import preflight
from deployments.engine.gpus import gpu_facts
from deployments.engine.options import Choice, splits_by
from deployments.engine.profiles import DATA, seeded_profiles
from deployments.engine.proposals import AT_ONCE, Preset, propose
from deployments.engine.sizing import FitState, fit
from deployments.models import CatalogEntry, Event, Flavor, ModelCheck, Team, User
from deployments.preflight import ClusterFacts, Facts, FlavorFacts, QuotaFacts
from deployments.services import catalogue
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.sources import SourceCheck, SourceCode, huggingface
from deployments.sources.checks import Reply
from deployments.spec import DeploymentSpec
from portal.management import platform
from sandbox.hub.app import Hub
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.viewing import flat, signed_in

ROWS = json.loads((DATA / "catalog.json").read_text(encoding="utf-8"))["models"]
FLAVORS = {row["slug"]: row for row in json.loads((DATA / "flavors.json").read_text(encoding="utf-8"))["flavors"]}
A100 = {"product": "NVIDIA-A100-SXM4-80GB", "memory_mib": 81920, "compute_capability": 8.0, "gpus_per_node": 8}
PRESETS = [(row, preset) for row in ROWS for preset in row["presets"]]
LLAMA = "hf://meta-llama/Llama-3.1-8B-Instruct"


def flavor_facts(slug: str) -> FlavorFacts:
    row = {"a100-sxm4-80gb": A100, **FLAVORS}[slug]
    names = ("product", "memory_mib", "compute_capability", "gpus_per_node")
    return FlavorFacts(slug, **{name: row[name] for name in names})


def entry_of(row: dict[str, Any]) -> CatalogEntry:
    return CatalogEntry(**row)


@pytest.mark.parametrize(("row", "stored"), PRESETS, ids=[f"{row['slug']}-{p['flavor']}" for row, p in PRESETS])
def test_every_preset_fits_and_could_be_sent(row: dict[str, Any], stored: dict[str, Any]) -> None:
    model, preset = entry_of(row).model, Preset.from_json(stored)
    flavor = flavor_facts(preset.flavor)
    assert model is not None
    estimate = fit(model, flavor.gpu, preset.args)
    assert estimate.state is FitState.FITS
    assert estimate.concurrency >= AT_ONCE
    assert splits_by(model, preset.per_replica)
    assert preset.per_replica <= flavor.gpus_per_node
    assert estimate.max_model_len <= row["context"]

    check = SourceCheck(SourceCode.FOUND, "", "", model)
    facts = Facts(
        flavors={flavor.slug: flavor},
        quotas={flavor.slug: QuotaFacts(limit=preset.gpus)},
        profiles=seeded_profiles(),
        model=model,
        source_check=check,
        cluster=ClusterFacts(sandbox=True),
    )
    spec = DeploymentSpec.from_json(
        {
            "source": {"uri": row["uri"], "revision": row["revision"]},
            "flavor": preset.flavor,
            "replicas": {"min": preset.replicas, "max": preset.replicas},
            "engine": {"profile": "vllm-0.32.0", "args": dict(preset.args)},
        }
    )
    found = preflight.check(spec, "chat", "search", facts)
    gate = {"source_gated"} if row["gated"] else set()  # A credential opens it, which the team chooses in the form.
    assert {finding.code for finding in found if finding.is_error} == gate


def test_a_preset_that_does_not_fit_would_be_noticed() -> None:
    model = next(entry_of(row).model for row in ROWS if row["slug"] == "qwen2.5-32b-instruct")
    assert model is not None
    assert fit(model, flavor_facts("l4-24gb").gpu, {"max-model-len": 8192}).state is FitState.NO


@pytest.mark.parametrize("row", ROWS, ids=[row["slug"] for row in ROWS])
def test_what_it_says_is_what_the_sandbox_hub_serves(row: dict[str, Any]) -> None:
    name = row["uri"].removeprefix("hf://")
    served = Hub().models[name]
    told = {
        "sha": served.sha,
        "gated": served.gated,
        "cardData": served.card,
        "safetensors": {"total": sum(served.parameters.values())},
        "siblings": [{"rfilename": file.name, "size": file.size} for file in served.files],
    }
    read = huggingface.model_facts(name, told, served.config)
    model = entry_of(row).model
    assert model is not None
    # A card knows of no files besides weights and of no layers besides its own: what a download takes, the hub says.
    unsaid = {"model_type": None, "architectures": (), "tokenizer_json": False}
    shape = {**read.as_json(), "license": "", "download_bytes": None, "mtp_layers": None, **unsaid}
    assert model.as_json() == shape
    assert (row["licence"], row["context"]) == (read.license, read.max_position)
    assert row["revision"] == served.sha


def test_each_has_settings_for_each_kind_of_gpu_that_comes_with_slipway() -> None:
    assert len(ROWS) >= 12
    for row in ROWS:
        assert set(FLAVORS) <= {preset["flavor"] for preset in row["presets"]}
        assert row["presets"][0]["flavor"] == row["flavor"]
        assert row["capabilities"]
        assert set(row["capabilities"]) <= set(catalogue.CAPABILITIES)


def test_proposals_take_the_fewest_gpus_that_hold_the_model() -> None:
    model = next(entry_of(row).model for row in ROWS if row["slug"] == "qwen2.5-32b-instruct")
    assert model is not None
    l4 = Choice("l4-24gb", gpu_facts("NVIDIA-L4"), 8)
    [preset] = propose(model, [l4])
    assert preset.per_replica == 4
    assert fit(model, l4.gpu, {**preset.args, "tensor-parallel-size": 2}).state is FitState.NO
    assert propose(model, [Choice("l4-24gb", gpu_facts("NVIDIA-L4"), 2)]) == []


@pytest.fixture
def seeded(h100: Flavor) -> list[str]:
    """The catalogue as an installation has it, on H100s (search may hold four) and L4s (of which it has none)."""
    make.make_flavor("l4-24gb")
    return platform.make_catalog()


def slugs(answer: Any) -> list[str]:
    return [offer.entry.slug for offer in answer.context["offers"]]


def test_the_page_says_what_the_quota_takes_now(seeded: list[str], team: Team, alice: User) -> None:
    page = signed_in(alice).get(reverse("catalogue"))

    assert len(slugs(page)) == len(ROWS)
    text = flat(page.content.decode())
    link = f"{reverse('deployment-create')}?model=qwen2.5-7b-instruct&amp;flavor=h100-80gb&amp;team=search"
    assert link in text
    assert "quota covers it (4 left)" in text
    assert "quota has 0 left" in text
    assert "L40S" not in text  # Nobody offers these here.


def test_the_filters_stand_in_the_address(seeded: list[str], team: Team, alice: User, h100: Flavor) -> None:
    client = signed_in(alice)
    everything = slugs(client.get(reverse("catalogue")))

    assert slugs(client.get(reverse("catalogue"), {"fits": "1"})) == everything
    assert slugs(client.get(reverse("catalogue"), {"can": "vision"})) == ["gemma-3-27b-it"]
    assert slugs(client.get(reverse("catalogue"), {"can": "flying"})) == everything
    make.make_deployment(team, alice, gpus=3)
    team.grants.update(gpus=1)
    few = slugs(client.get(reverse("catalogue"), {"fits": "1"}))
    assert "llama-3.3-70b-instruct" not in few
    assert "qwen3-8b" in few
    team.grants.update(gpus=0)
    page = client.get(reverse("catalogue"), {"fits": "1"})
    assert slugs(page) == []
    assert "Show all models" in page.content.decode()


def test_the_quota_of_one_team_may_be_chosen(seeded: list[str], alice: User) -> None:
    make.join(alice, make.make_team("labs"))
    client = signed_in(alice)

    assert slugs(client.get(reverse("catalogue"), {"fits": "1", "team": "labs"})) == []
    assert slugs(client.get(reverse("catalogue"), {"fits": "1", "team": "search"}))
    assert slugs(client.get(reverse("catalogue"), {"fits": "1", "team": "nobodys"}))


@pytest.mark.usefixtures("hub", "seeded")
def test_one_click_fills_the_form_with_the_preset(alice: User) -> None:
    wish = {"model": "qwen2.5-14b-instruct", "flavor": "l4-24gb", "team": "search"}
    values = signed_in(alice).get(reverse("deployment-create"), wish).context["values"]

    assert values["source_uri"] == "hf://Qwen/Qwen2.5-14B-Instruct"
    assert re.fullmatch("[0-9a-f]{40}", values["source_revision"])
    assert (values["flavor"], values["tensor_parallel_size"], values["max_model_len"]) == ("l4-24gb", "2", "16384")
    # A flavor that is not offered here gives the suggested preset, and that of an own one where that is not either.
    wish = {"model": "qwen3-8b", "flavor": "l40s-48gb"}
    values = signed_in(alice).get(reverse("deployment-create"), wish).context["values"]
    assert (values["flavor"], values["max_model_len"]) == ("h100-80gb", "32768")


@pytest.mark.usefixtures("seeded")
def test_the_list_takes_few_statements(alice: User, django_assert_max_num_queries: Any) -> None:
    teams = list(Team.objects.all())
    with django_assert_max_num_queries(5):
        who = make.principal(alice)
        assert catalogue.offers(CatalogEntry.objects.visible_to(who), teams)


def test_an_empty_catalogue_teaches(alice: User, carol: User) -> None:
    assert "A platform admin adds models" in signed_in(alice).get(reverse("catalogue")).content.decode()
    text = signed_in(carol).get(reverse("catalogue")).content.decode()
    assert f'href="{reverse("catalogue-add")}"' in text


@pytest.mark.usefixtures("hub", "seeded")
def test_what_is_hidden_is_for_admins_alone(alice: User, carol: User) -> None:
    row = CatalogEntry.objects.get(slug="qwen3-8b")
    address = reverse("catalogue-change", args=[row.pk])
    assert signed_in(alice).post(address, {"do": "hide"}).status_code == 404
    assert signed_in(carol).post(address, {"do": "hide"}).status_code == 302

    assert "qwen3-8b" not in slugs(signed_in(alice).get(reverse("catalogue")))
    assert "qwen3-8b" in slugs(signed_in(carol).get(reverse("catalogue")))
    values = signed_in(alice).get(reverse("deployment-create"), {"model": "qwen3-8b"}).context["values"]
    assert values["source_uri"] == ""
    event = Event.objects.get(kind="catalogue_changed")
    assert (event.data["before"], event.data["after"]) == ({"active": True}, {"active": False})
    signed_in(carol).post(address, {"do": "hide"})
    signed_in(carol).post(address, {"do": "sing"})
    assert Event.objects.filter(kind="catalogue_changed").count() == 1


@pytest.mark.usefixtures("seeded")
def test_what_is_pinned_stands_first_and_stays_so_when_the_platform_is_set_up_again(alice: User, carol: User) -> None:
    who = make.principal(carol)
    catalogue.change(principal=who, slug="gemma-3-27b-it", pinned=True)
    catalogue.change(principal=who, slug="qwen3-8b", active=False)
    assert slugs(signed_in(alice).get(reverse("catalogue")))[0] == "gemma-3-27b-it"

    assert platform.make_catalog() == []

    assert CatalogEntry.objects.get(slug="gemma-3-27b-it").pinned
    assert not CatalogEntry.objects.get(slug="qwen3-8b").active


@pytest.mark.usefixtures("seeded")
def test_entries_of_before_get_their_settings() -> None:
    CatalogEntry.objects.filter(slug="qwen3-8b").update(presets=[], facts={}, revision="", args={"max-model-len": 1024})
    assert platform.make_catalog() == ["settings of Qwen3 8B"]
    row = CatalogEntry.objects.get(slug="qwen3-8b")
    assert row.choices[0].args["max-model-len"] == 32768


@pytest.mark.usefixtures("hub")
def test_an_admin_adds_a_model_by_its_address(carol: User) -> None:
    make.make_flavor("l4-24gb")
    sent = {"uri": make.QWEN, "summary": "Good.", "capabilities": ["tools", "chat"]}
    client = signed_in(carol)

    assert client.post(reverse("catalogue-add"), sent).status_code == 302

    row = CatalogEntry.objects.get()
    assert (row.slug, row.name, row.revision) == ("qwen2.5-7b-instruct", "Qwen2.5-7B-Instruct", make.COMMIT)
    assert (row.licence, row.context, row.capabilities) == ("apache-2.0", 32768, ["chat", "tools"])
    assert {preset.flavor for preset in row.choices} == {"h100-80gb", "l4-24gb"}
    assert Event.objects.get(kind="catalogue_added").data["after"]["uri"] == make.QWEN
    again = client.post(reverse("catalogue-add"), {**sent, "summary": "Better."})
    assert again.status_code == 422
    assert "has this model already" in again.content.decode()
    assert 'value="Better."' in again.content.decode()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uri": "hf://Qwen/Nothing-7B"}, "uri"),
        ({"uri": "s3://bucket/model"}, "uri"),
        ({"uri": "Qwen"}, "uri"),
        ({"uri": ""}, "uri"),
        ({"uri": "hf://" + "a" * 400}, "uri"),
        ({"summary": "x" * 301}, "summary"),
        ({"capabilities": ["flying"]}, "capabilities"),
        ({"capabilities": "chat"}, "capabilities"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_cannot_be_added_is_refused_at_its_field(carol: User, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        catalogue.add(principal=make.principal(carol), **{"uri": make.QWEN, **change})
    assert refused.value.field == field
    assert not CatalogEntry.objects.exists()


@pytest.mark.usefixtures("hub")
def test_a_gated_model_may_be_added_without_settings(carol: User, alice: User) -> None:
    facts = {"id": LLAMA.removeprefix("hf://"), "sha": make.COMMIT, "gated": True, "license": "llama3.1"}
    make.make_check(LLAMA, result="gated", facts=facts)

    row = catalogue.add(principal=make.principal(carol), uri=LLAMA)

    assert (row.gated, row.presets, row.flavor) == (True, [], "")
    text = flat(signed_in(alice).get(reverse("catalogue")).content.decode())
    assert "<dt>Runs on</dt><dd>your choice</dd>" in text
    assert f'href="{reverse("deployment-create")}?model={row.slug}"' in text


def test_a_hub_that_cannot_be_reached_adds_nothing(carol: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.services.model_checks._get", lambda path: Reply(0, error="no route"))
    answer = signed_in(carol).post(reverse("catalogue-add"), {"uri": make.QWEN, "summary": "Kept."})
    assert answer.status_code == 422
    assert "could not be asked" in answer.content.decode()
    assert 'value="Kept."' in answer.content.decode()
    assert not CatalogEntry.objects.exists()


@pytest.mark.usefixtures("seeded")
def test_others_change_nothing(alice: User, carol: User) -> None:
    for who in (make.principal(alice), make.principal(carol, "read", "write")):
        with pytest.raises(NotAllowedError):
            catalogue.change(principal=who, slug="qwen3-8b", active=False)
        with pytest.raises(NotAllowedError):
            catalogue.add(principal=who, uri=make.QWEN)
    with pytest.raises(MissingError):
        catalogue.change(principal=make.principal(carol), slug="no-such", active=False)


@pytest.mark.usefixtures("hub", "seeded")
def test_the_api_reads_for_all_and_writes_for_admins(alice: User, carol: User) -> None:
    api, admin = Api(alice, "read"), Api(carol)
    rows = api("get", "catalog/?capability=vision&fits_quota=true&team=search").json()
    assert [row["slug"] for row in rows] == ["gemma-3-27b-it"]
    places = {preset["flavor"]: preset for preset in rows[0]["presets"]}
    assert (places["h100-80gb"]["fit"], places["h100-80gb"]["fits_quota"]) == ("fits", True)
    assert (places["l4-24gb"]["gpus"], places["l4-24gb"]["fits_quota"]) == (4, False)
    assert api("get", "catalog/?fits_quota=true&team=labs").json() == []
    assert api("get", "catalog/?capability=flying").status_code == 422

    assert admin("patch", "catalog/qwen3-8b/", {"active": False, "pinned": True}).json()["active"] is False
    assert api("get", "catalog/qwen3-8b/").status_code == 404
    assert admin("get", "catalog/qwen3-8b/").json()["pinned"] is True
    assert admin("patch", "catalog/qwen3-8b/", {"uri": "hf://org/mine"}).status_code == 422
    taken = admin("post", "catalog/", {"uri": make.QWEN})
    assert (taken.status_code, taken.json()["code"]) == (409, "exists")
    CatalogEntry.objects.filter(uri=make.QWEN).delete()
    made = admin("post", "catalog/", {"uri": make.QWEN, "capabilities": ["chat"]})
    assert (made.status_code, made.json()["slug"]) == (201, "qwen2.5-7b-instruct")
    assert Api(alice)("post", "catalog/", {"uri": make.QWEN}).status_code == 403


@pytest.mark.usefixtures("hub")
def test_two_models_of_one_name_get_names_of_their_own(carol: User) -> None:
    make.make_check("hf://other/Qwen2.5-7B-Instruct")
    ModelCheck.objects.filter(uri__contains="other").update(
        facts={**make.make_check().facts, "id": "other/Qwen2.5-7B-Instruct"}
    )
    who = make.principal(carol)
    names = [catalogue.add(principal=who, uri=uri).slug for uri in (make.QWEN, "hf://other/Qwen2.5-7B-Instruct")]
    assert names == ["qwen2.5-7b-instruct", "qwen2.5-7b-instruct-2"]
    with pytest.raises(ConflictError):
        catalogue.add(principal=who, uri=make.QWEN)
