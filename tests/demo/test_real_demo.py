"""The demo on a real control plane, as `make demo CLUSTER=real` starts it: from a wish to an answer, and a kill."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portal.demo.stack import NODES
from tests.demo.people import Person, kubectl, wait_until, wish
from tests.demo.test_kills import kill, running
from tests.demo.test_stack import Demo, rows, working_in
from tests.scenarios import grounds, timings

TEAM, NAME = "devtools", "on-real"
CONTROL_PLANE = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve", "llmisvc", "lws"}
QUESTION = {"model": NAME, "messages": [{"role": "user", "content": "What is a pod?"}], "max_tokens": 16}
# From the first process to the last, and from the wish to the state; some three times what a quiet machine takes.
UP_SECONDS, RUNNING_SECONDS = 180.0, 90.0


@pytest.fixture
def on_real(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The whole demo with CLUSTER=real on data of its own: what demo.json says, and `data`, the folder."""
    if why := grounds.why_not("real"):
        timings.absent("real", why)
        pytest.skip(why)
    data = tmp_path / "demo"
    demo = Demo(data, "--cluster", "real")
    try:
        yield demo.wait_until_up(UP_SECONDS) | {"data": str(data)}
        assert demo.press_ctrl_c() < 30
        assert demo.process.returncode == 0, demo.output.read_text()
        assert not working_in(data)
    finally:
        if demo.process.poll() is None:
            demo.press_ctrl_c()


@pytest.mark.stack
@pytest.mark.timeout(360)
def test_a_newcomers_walk(on_real: dict[str, Any]) -> None:
    states = {name: row["state"] for name, row in rows(Path(on_real["data"])).items()}
    assert states.keys() >= CONTROL_PLANE
    assert set(states.values()) <= {"up", "done"}
    assert kubectl(on_real, "version")["serverVersion"]["gitVersion"].startswith("v1.36.")
    dave = Person.named(on_real, "dave")
    namespace = next(team for team in dave.call("GET", "/api/v1/teams/")[1] if team["slug"] == TEAM)["namespace"]

    pk = dave.ask(wish(TEAM, NAME))
    dave.wait_for(pk, "Running", RUNNING_SECONDS)

    here = f"/api/v1/deployments/{pk}"
    endpoint = dave.call("GET", f"{here}/")[1]["endpoint"]
    assert answered(dave, endpoint)
    # A rate: it takes answers between two scrapes.
    wait_until(lambda: answered(dave, endpoint) and largest(dave, f"{here}/metrics/?panel=requests") > 0, 60)
    status, log = dave.call("GET", f"{here}/logs/")
    assert status == 200
    assert any("vLLM" in line for line in log["lines"]), log
    services = kubectl(on_real, "get", "inferenceservices", "-n", namespace)["items"]
    assert [item["metadata"]["name"] for item in services if item["metadata"]["name"] == NAME] == [NAME]
    assert {item["metadata"]["name"] for item in kubectl(on_real, "get", "nodes")["items"]} == set(NODES)

    kill(on_real, "kserve")

    wait_until(lambda: running(on_real, "kserve")["state"] == "up", 60, lambda: running(on_real, "kserve"))
    # It is at work again: what Slipway asks for next is for it to carry out.
    assert dave.call("DELETE", f"{here}/")[0] == 202
    dave.wait_for(pk, "gone", RUNNING_SECONDS)


def answered(person: Person, endpoint: str) -> str:
    """What the model says to a question through the gateway."""
    sent = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{endpoint}/chat/completions", json.dumps(QUESTION).encode(), sent)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text: str = json.load(answer)["choices"][0]["message"]["content"]
        return text


def largest(person: Person, path: str) -> float:
    """The highest point of a panel's lines, 0 where nothing is drawn."""
    status, answer = person.call("GET", path)
    assert status == 200, answer
    [panel] = answer["panels"]
    return max((value or 0 for line in panel["series"] for _, value in line["points"]), default=0)
