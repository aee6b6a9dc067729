"""Manifests as text: in the order in which people write and read them, after the database has lost it."""

from __future__ import annotations

import pytest
import yaml
from django.urls import reverse

from deployments.manifests import build
from deployments.manifests.text import all_as_yaml, as_yaml, in_order
from deployments.models import Team, User
from deployments.services import requests
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.viewing import signed_in
from tests.deployments.wishes import wish_of

# As jsonb hands it back: the shortest keys first.
ODD = {
    "kind": "Pod",
    "spec": {"containers": [{"args": ["--a"], "name": "one", "image": "i"}], "affinity": {}},
    "extra": {"b": 1, "a": 2},
    "status": {"phase": "Running"},
    "metadata": {"uid": "u", "name": "p", "labels": {"b": "1", "a": "2"}, "namespace": "n", "annotations": {}},
    "apiVersion": "v1",
}


def test_an_object_begins_as_manifests_do() -> None:
    assert as_yaml(ODD).splitlines() == [
        "apiVersion: v1",
        "kind: Pod",
        "metadata:",
        "  name: p",
        "  namespace: n",
        "  labels:",
        "    a: '2'",
        "    b: '1'",
        "  annotations: {}",
        "  uid: u",
        "spec:",
        "  affinity: {}",
        "  containers:",
        "  - name: one",
        "    args:",
        "    - --a",
        "    image: i",
        "extra:",
        "  a: 2",
        "  b: 1",
        "status:",
        "  phase: Running",
    ]


def test_what_is_inside_an_object_has_its_own_head() -> None:
    template = {"spec": {"x": 1}, "metadata": {"labels": {}, "name": "t"}}
    found = in_order({"kind": "List", "items": [ODD], "spec": {"template": template}})

    assert list(found) == ["kind", "spec", "items"]
    assert list(found["items"][0]) == ["apiVersion", "kind", "metadata", "spec", "extra", "status"]
    assert list(found["spec"]["template"]) == ["metadata", "spec"]
    assert list(found["spec"]["template"]["metadata"]) == ["name", "labels"]


@pytest.mark.parametrize("item", [{}, {"metadata": None}, {"metadata": "x", "spec": [1, [None]]}])
def test_odd_objects_are_written_too(item: dict[str, object]) -> None:
    assert yaml.safe_load(as_yaml(item)) == item


def test_nothing_is_lost_or_changed() -> None:
    objects = build(wish_of())

    assert list(yaml.safe_load_all(all_as_yaml(objects))) == objects


@pytest.mark.django_db
def test_pages_and_files_show_signed_objects_in_that_order(hub: list[str], team: Team, ann: User) -> None:
    spec = DeploymentSpec.from_json(make.a_spec())
    row = requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)
    path = reverse("deployment-manifests", args=[row.pk])

    text = signed_in(ann).get(path, {"format": "yaml"}).content.decode()
    shown = [item["yaml"] for item in signed_in(ann).get(path).context["objects"]]

    assert text.split("---\n") == shown
    for each in shown:
        keys = [line.partition(":")[0] for line in each.splitlines() if line[0].isalpha()]
        assert keys[:3] == ["apiVersion", "kind", "metadata"]
        assert [line.strip().partition(":")[0] for line in each.splitlines()[3:5]] == ["name", "namespace"]
