"""What programs may send: the API answers with a problem that points at what is wrong, and never with a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .people import Person, wish
from .steady import nothing_written

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

LONG = "x" * 300
QUERIES = ("", "-1", "9" * 31, "a\x00b", "größe\u202e🚀", LONG, "' OR 1=1 --")


@pytest.fixture(scope="module")
def chat(demo: dict[str, Any]) -> int:
    """A deployment of Alice's team."""
    return int(Person.named(demo, "alice").call("GET", "/api/v1/deployments/?name=chat")[1]["results"][0]["id"])


def body(**changes: Any) -> dict[str, Any]:
    """A good request to the API, with parts of its spec or of itself changed."""
    made = wish("search", "fresh-name")
    spec = changes.pop("spec", {})
    if isinstance(spec, dict):
        made["spec"] = {**made["spec"], **spec}
    else:
        made["spec"] = spec
    return {**made, **changes}


def args(**flags: Any) -> dict[str, Any]:
    return {"engine": {"profile": "vllm-0.32.0", "args": {name.replace("_", "-"): flags[name] for name in flags}}}


def nested(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = {"a": made}
    return made


# What is sent to POST /api/v1/deployments/: the body and the pointer that the problem must name.
SENT: list[tuple[Any, str]] = [
    (body(name="Chat"), "/name"),
    (body(name="größe"), "/name"),
    (body(name=LONG), "/name"),
    (body(name="-x"), "/name"),
    (body(name="../x"), "/name"),
    (body(name="a\0b"), "/name"),
    (body(name="{{.Name}}"), "/name"),
    (body(name="$(VAR)"), "/name"),
    (body(name="chat"), "/name"),
    (body(name=""), "/name"),
    (body(name=None), "/name"),
    (body(name=7), "/name"),
    (body(name=["chat"]), "/name"),
    (body(team="labs"), "/team"),
    (body(team="no-such-team"), "/team"),
    (body(team=None), "/team"),
    (body(team={"slug": "search"}), "/team"),
    (body(team="a\0b"), "/team"),
    (body(note="x" * 501), "/note"),
    (body(note=5), "/note"),
    (body(colour="red"), "/colour"),
    (body(spec=None), "/spec"),
    (body(spec=[]), "/spec"),
    (body(spec="{}"), "/spec"),
    (body(spec={"source": {"uri": "x" * 200_000}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": ""}}), "/spec/source/uri"),
    (body(spec={"source": {}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": 5}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": "hf://Qwen/$(HF_TOKEN)"}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": "hf://Qwen/{{.Name}}"}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": "ftp://x/y"}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": "hf://Qwen/No-Such-Model"}}), "/spec/source/uri"),
    (body(spec={"source": {"uri": "hf://a/b", "credential": "nobodys"}}), "/spec/source/credential"),
    (body(spec={"source": {"uri": "hf://a/b", "revision": "a b"}}), "/spec/source/revision"),
    (body(spec={"source": {"uri": "hf://a/b", "colour": 1}}), "/spec/source/colour"),
    (body(spec={"strategy": "magic"}), "/spec/strategy"),
    (body(spec={"strategy": 1}), "/spec/strategy"),
    (body(spec={"flavor": "no-such-gpu"}), "/spec/flavor"),
    (body(spec={"flavor": "a\0b"}), "/spec/flavor"),
    (body(spec={"flavor": None}), "/spec/flavor"),
    (body(spec={"replicas": {"min": 0, "max": 1}}), "/spec/replicas/min"),
    (body(spec={"replicas": {"min": -1, "max": 1}}), "/spec/replicas/min"),
    (body(spec={"replicas": {"min": True, "max": 1}}), "/spec/replicas/min"),
    (body(spec={"replicas": {"min": "1", "max": 1}}), "/spec/replicas/min"),
    (body(spec={"replicas": {"min": 1, "max": 1.5}}), "/spec/replicas/max"),
    (body(spec={"replicas": {"min": 3, "max": 2}}), "/spec/replicas/max"),
    (body(spec={"replicas": {"min": 1, "max": 10**9}}), "/spec/replicas/max"),
    (body(spec={"replicas": []}), "/spec/replicas"),
    (body(spec={"engine": {"profile": "vllm-9.9.9", "args": {}}}), "/spec/engine/profile"),
    (body(spec={"engine": {"profile": "vllm-0.32.0", "args": []}}), "/spec/engine/args"),
    (body(spec=args(no_such_flag=1)), "/spec/engine/args/no-such-flag"),
    (body(spec=args(port=9000)), "/spec/engine/args/port"),
    (body(spec=args(api_key="x")), "/spec/engine/args/api-key"),
    (body(spec=args(tensor_parallel_size=True)), "/spec/engine/args/tensor-parallel-size"),
    (body(spec=args(tensor_parallel_size=3)), "/spec/engine/args/tensor-parallel-size"),
    (body(spec=args(tensor_parallel_size=-1)), "/spec/engine/args/tensor-parallel-size"),
    (body(spec=args(tensor_parallel_size=10**15)), "/spec/engine/args/tensor-parallel-size"),
    (body(spec=args(tensor_parallel_size="2")), "/spec/engine/args/tensor-parallel-size"),
    (body(spec=args(max_model_len=None)), "/spec/engine/args/max-model-len"),
    (body(spec=args(max_model_len={"a": 1})), "/spec/engine/args/max-model-len"),
    (body(spec=args(max_model_len=1e300)), "/spec/engine/args/max-model-len"),
    (body(spec=args(seed="$(X)")), "/spec/engine/args/seed"),
    (body(spec=args(quantization="x" * 100_000)), "/spec/engine/args/quantization"),
    (body(spec=args(**{f"flag-{number}": 1 for number in range(3_000)})), "/spec/engine/args"),
    (body(spec=args(**{"Größe": 1})), "/spec/engine/args/Größe"),
    (body(spec={"engine": {"args": {"a/b~c": 1}}}), "/spec/engine/args/a~1b~0c"),
    (body(spec=nested(200)), "/spec/a"),
    ({}, "/team"),
    ({"team": "search", "name": "fresh-name"}, "/spec"),
]

# Bodies that are no request at all: content, content type, status.
RAW: list[tuple[bytes, str, int]] = [
    (b"{", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b"NaN", "application/json", 400),
    (b'{"team": "search", "name": "x", "spec": {"replicas": {"min": NaN}}}', "application/json", 400),
    (b'{"team": "search", "name": "x", "spec": {"replicas": {"min": 1e400}}}', "application/json", 400),
    (b'{"name": "\\ud800"}', "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b'{"a":' * 2000 + b"1" + b"}" * 2000, "application/json", 400),
    (b"[]", "application/json", 422),
    (b'"text"', "application/json", 422),
    (b"null", "application/json", 422),
    (b" " * 1_100_000, "application/json", 413),
    (b'{"team": "search"}', "text/plain", 415),
    (b"team=search", "application/x-www-form-urlencoded", 415),
    (b"--x--", "multipart/form-data; boundary=x", 415),
    (b"<a/>", "application/xml", 415),
]


@pytest.fixture(scope="module")
def api(demo: dict[str, Any]) -> Iterator[httpx.Client]:
    """The REST API with Alice's token."""
    token = Person.named(demo, "alice").token
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=demo["url"] + "/api/v1", headers=headers, timeout=30, trust_env=False) as client:
        yield client


def _api_problem(answer: httpx.Response, statuses: set[int], pointer: str | None = None) -> str:
    """What is wrong with the API's answer to bad input; empty when it is as it should be."""
    if answer.status_code not in statuses:
        return f"answered {answer.status_code}: {answer.text[:200]}"
    if answer.headers["content-type"].split(";")[0] != "application/problem+json":
        return f"is {answer.headers['content-type']}"
    problem = answer.json()
    if problem["status"] != answer.status_code or not problem["title"] or not problem["code"]:
        return f"says {answer.text[:200]}"
    pointers = [entry["pointer"] for entry in problem.get("errors", [])]
    if pointer is not None and pointer not in pointers:
        return f"points at {pointers[:4]}: {problem['detail'][:120]}"
    if any(not entry["detail"] for entry in problem.get("errors", [])):
        return "has an entry without words"
    return ""


def test_the_api_answers_with_a_problem_that_points(api: httpx.Client, chat: int, demo: dict[str, Any]) -> None:
    wrong = []
    with nothing_written(demo):
        for sent, pointer in SENT:
            shown = json.dumps(sent)[:120]
            if problem := _api_problem(api.post("/deployments/", json=sent), {422}, pointer):
                wrong.append(f"{pointer} {problem} <- {shown}")
            checked = api.post("/preflight/", json=sent)
            fine = pointer != "/note" and checked.status_code == 200 and checked.json()["ok"]
            if checked.status_code not in {200, 422} or fine:
                wrong.append(f"preflight {checked.status_code} <- {shown}")
        for content, kind, status in RAW:
            for method, path in (("POST", "/deployments/"), ("POST", "/preflight/"), ("PUT", f"/deployments/{chat}/")):
                answer = api.request(method, path, content=content, headers={"Content-Type": kind})
                if problem := _api_problem(answer, {status}):
                    wrong.append(f"{method} {path} {content[:30]!r} {kind}: {problem}")
    assert not wrong, "\n".join(wrong)


def test_edits_decisions_and_grants_through_the_api_are_checked(
    api: httpx.Client, demo: dict[str, Any], chat: int
) -> None:
    spec = body()["spec"]
    admin = httpx.Client(base_url=demo["url"] + "/api/v1", timeout=30, trust_env=False)
    admin.headers["Authorization"] = f"Bearer {Person.named(demo, 'carol').token}"
    foreign = admin.get("/deployments/?name=summary").json()["results"][0]["id"]
    one = f"/deployments/{chat}/"
    grant = {"team": "search", "flavor": "l4-24gb", "gpus": 1}
    cases: list[tuple[httpx.Client, str, str, Any, set[int]]] = [
        (api, "PUT", one, {"spec": spec}, {428}),
        (api, "PUT", one, {"spec": spec, "base_revision": "1"}, {422}),
        (api, "PUT", one, {"spec": spec, "base_revision": True}, {422}),
        (api, "PUT", one, {"spec": spec, "base_revision": 10**30}, {422}),
        (api, "PUT", one, {"spec": spec, "base_revision": -1}, {412}),
        (api, "PATCH", one, {"spec": {"replicas": None, "engine": 5}, "base_revision": 1}, {422}),
        (api, "PATCH", one, {"spec": {"flavor": None}, "base_revision": 1}, {422}),
        (api, "PATCH", one, {"spec": "x", "base_revision": 1}, {422}),
        (api, "POST", f"{one}stop/", {"reason": LONG + "x"}, {422}),
        (api, "POST", f"{one}stop/", {"reason": 5}, {422}),
        (api, "POST", f"{one}stop/", {"colour": 5}, {422}),
        (api, "POST", f"{one}approve/", {}, {428}),
        (api, "POST", f"{one}approve/", {"digest": "x" * 10_000}, {409, 412, 422}),
        (api, "POST", f"{one}approve/", {"digest": "a\0b"}, {409, 412, 422}),
        (api, "POST", f"{one}reject/", {"digest": {"a": 1}}, {409, 412, 422}),
        (api, "PUT", f"/deployments/{foreign}/", {"spec": spec, "base_revision": 1}, {404}),
        (api, "DELETE", f"/deployments/{foreign}/", None, {404}),
        (api, "POST", f"/deployments/{foreign}/stop/", {}, {404}),
        (api, "POST", f"/deployments/{foreign}/approve/", {"digest": "x"}, {404}),
        (api, "POST", "/quota-grants/", {"team": "search", "flavor": "l4-24gb", "gpus": 1}, {403, 404}),
        (api, "POST", "/tokens/", {"name": "x", "scopes": ["approve", "root"], "days": 1}, {422}),
        (api, "POST", "/tokens/", {"name": "x", "scopes": ["read"], "days": 0}, {422}),
        (api, "POST", "/tokens/", {"name": "x", "scopes": ["read"], "days": 10**30}, {400, 422}),
        (api, "POST", "/tokens/", {"name": LONG, "scopes": ["read"]}, {422}),
        (api, "POST", "/tokens/", {"name": "a\0", "scopes": ["read"], "teams": ["labs"]}, {422}),
        (api, "POST", "/tokens/", {"name": "x", "scopes": "read"}, {422}),
        (api, "POST", "/tokens/", {"name": "x", "scopes": []}, {422}),
        (admin, "POST", "/quota-grants/", {"team": "a\0", "flavor": "l4-24gb", "gpus": 1}, {422}),
        (admin, "POST", "/quota-grants/", {"team": "search", "flavor": "no-such", "gpus": 1}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "gpus": -1}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "gpus": 10**18}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "gpus": True}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "gpus": 1.5}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "gpus": "many"}, {422}),
        (admin, "POST", "/quota-grants/", {**grant, "until": "soon"}, {422}),
        (
            admin,
            "POST",
            "/quota-grants/",
            {**grant, "until": "0001-01-01"},
            {422},
        ),
        (admin, "PATCH", "/quota-grants/999999999999999999/", {"gpus": 1}, {404}),
    ]
    wrong = []
    with nothing_written(demo):
        for client, method, path, sent, statuses in cases:
            content = None if sent is None else json.dumps(sent)
            answer = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
            if problem := _api_problem(answer, statuses):
                wrong.append(f"{method} {path} {json.dumps(sent)[:90]}: {problem}")
    admin.close()
    assert not wrong, "\n".join(wrong)


def test_queries_and_ids_of_the_api_never_break_it(api: httpx.Client, chat: int) -> None:
    wrong = []
    for path, names in (
        ("/deployments/", ("team", "state", "name", "limit", "after")),
        ("/reservations/", ("team", "flavor", "deployment", "limit", "after")),
        ("/events/", ("team", "deployment", "kind", "limit", "after")),
        ("/quota-grants/", ("team", "flavor", "limit", "after")),
        ("/tokens/", ("limit", "after")),
        (f"/deployments/{chat}/revisions/", ("limit", "after")),
        (f"/deployments/{chat}/metrics/", ("range", "panel")),
        (f"/deployments/{chat}/logs/", ("pod", "container", "tail", "previous")),
        ("/schema/", ("format", "version")),
    ):
        for name in names:
            for text in QUERIES:
                answer = api.get(f"{path}?{name}={quote(text)}")
                if answer.status_code >= 500:
                    wrong.append(f"{path} {name}={text[:20]!r}: {answer.status_code} {answer.text[:100]}")
    for odd in ("0", "-1", "9" * 18, "1" + "0" * 30, "1e3", "abc", "%00", "١", "1%2F2", "None"):
        for path in (
            "/deployments/{}/",
            "/deployments/{}/revisions/",
            "/deployments/1/revisions/{}/",
            "/tokens/{}/",
        ):
            answer = api.get(path.format(odd))
            if answer.status_code not in {400, 404, 405}:
                wrong.append(f"{path.format(odd)}: {answer.status_code}")
            elif answer.headers["content-type"].split(";")[0] != "application/problem+json":
                wrong.append(f"{path.format(odd)}: {answer.headers['content-type']}")
    assert not wrong, "\n".join(wrong)
