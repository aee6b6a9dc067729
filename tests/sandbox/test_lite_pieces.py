"""The pure pieces of the lite server, each by itself."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.lite import protobuf, quantity
from sandbox.lite.apply import merge
from sandbox.lite.fields import TypedError, compare, decode, encode, field_set
from sandbox.lite.patch import strategic_merge
from sandbox.lite.schema import Schema
from sandbox.lite.tables import _json_path, _walk, age

SPEC = Schema.of_builtin("core.v1.PodSpec")
SERVICE = Schema.of_builtin("core.v1.Service")


def containers(names: str) -> dict[str, Any]:
    return {"containers": [{"name": name} for name in names]}


@pytest.mark.parametrize(
    ("live", "applied", "joined"),
    [
        ("abc", "abc", "abc"),
        ("abc", "b", "abc"),
        ("abc", "ca", "bca"),
        ("abc", "xb", "axbc"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("abc", "cxb", "acxb"),
    ],
)
def test_keyed_lists_join_in_the_applied_order(live: str, applied: str, joined: str) -> None:
    result = merge(containers(live), containers(applied), SPEC)

    assert "".join(item["name"] for item in result["containers"]) == joined


@given(st.permutations("abcdef"), st.permutations("cdefgh"))
def test_joining_loses_and_doubles_nothing(live: list[str], applied: list[str]) -> None:
    result = merge(containers("".join(live)), containers("".join(applied)), SPEC)["containers"]

    names = [item["name"] for item in result]
    assert sorted(names) == list("abcdefgh")
    assert [name for name in names if name in applied] == list(applied)


def test_a_field_set_is_spelled_as_managed_fields() -> None:
    spec = {
        "containers": [{"name": "main", "image": "e", "ports": [{"containerPort": 80}]}],
        "nodeSelector": {"a": "b"},
    }

    assert encode(field_set(spec, SPEC)) == {
        "f:containers": {
            'k:{"name":"main"}': {
                ".": {},
                "f:image": {},
                "f:name": {},
                "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
            }
        },
        "f:nodeSelector": {},
    }


PATHS = st.sets(st.lists(st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"']), min_size=1, max_size=4).map(tuple))


@given(PATHS)
def test_managed_fields_read_back_as_written(paths: set[tuple[str, ...]]) -> None:
    assert decode(encode(paths)) == paths


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"nope": 1}, ".nope: field not declared in schema"),
        ({"containers": {}}, ".containers: expected list, got &{map[]}"),
        ({"containers": [3]}, ".containers: element 0: associative list with keys may not have non-map elements"),
        ({"nodeSelector": [1]}, ".nodeSelector: expected map, got &{[1]}"),
        ({"hostNetwork": "x"}, ".hostNetwork: expected boolean, got &{x}"),
        ({"nodeName": 1.5}, ".nodeName: expected string, got &value.valueUnstructured{Value:1.5}"),
        ({"priority": "high"}, ".priority: expected numeric (int or float), got string"),
        (
            {"containers": [{"name": "a", "args": ["y", {"x": 1}]}]},
            '.containers[name="a"].args[1]: expected string, got '
            '&value.valueUnstructured{Value:map[string]interface {}{"x":1}}',
        ),
    ],
)
def test_what_does_not_fit_the_schema_is_named(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypedError) as caught:
        field_set(spec, SPEC)

    assert str(caught.value) == sentence


def test_structs_of_built_in_kinds_are_not_owned_themselves() -> None:
    found = compare({}, {"spec": {"type": "ClusterIP", "selector": {"a": "b"}}}, SERVICE)

    assert found.added == {("f:spec", "f:type"), ("f:spec", "f:selector")}


def test_pointers_to_structs_are_owned_and_so_are_the_structs_of_a_new_item() -> None:
    strategy = {"rollingUpdate": {"maxSurge": 1}}
    item = {"name": "main", "resources": {}}

    assert compare({}, {"strategy": strategy}, Schema.of_builtin("apps.v1.DeploymentSpec")).added == {
        ("f:strategy", "f:rollingUpdate"),
        ("f:strategy", "f:rollingUpdate", "f:maxSurge"),
    }
    assert compare({}, {"containers": [item]}, SPEC).added == {
        ("f:containers", 'k:{"name":"main"}'),
        ("f:containers", 'k:{"name":"main"}', "f:name"),
        ("f:containers", 'k:{"name":"main"}', "f:resources"),
    }


def test_strategic_merge_obeys_replace_and_element_order() -> None:
    live = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}
    order = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "2"}]}
    whole = {"containers": [{"$patch": "replace"}, {"name": "c", "image": "3"}]}

    assert strategic_merge(live, order, SPEC)["containers"] == [
        {"name": "b", "image": "1"},
        {"name": "a", "image": "2"},
    ]
    assert strategic_merge(live, whole, SPEC)["containers"] == [{"name": "c", "image": "3"}]


def test_strategic_merge_puts_what_is_new_first_and_where_the_order_says() -> None:
    live = {"containers": [{"name": "a"}, {"name": "b"}]}
    order = {"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}]}

    def names(patch: dict[str, Any]) -> list[str]:
        return [item["name"] for item in strategic_merge(live, patch, SPEC)["containers"]]

    assert names({"containers": [{"name": "c"}]}) == ["c", "a", "b"]
    assert names({"containers": [{"name": "c"}, {"name": "b", "image": "1"}]}) == ["c", "a", "b"]
    assert names(order | {"containers": [{"name": "c"}]}) == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("32Gi", "32Gi"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1e3", "1k"),
        ("0", "0"),
    ],
)
def test_quantities_are_stored_in_one_spelling(text: str, stored: str) -> None:
    assert quantity.canonical(text) == stored
    assert quantity.parse(text) == quantity.parse(stored)


@given(st.integers(0, 10**15))
def test_decimal_spelling_keeps_the_amount(milli: int) -> None:
    amount = Decimal(milli) / 1000

    assert quantity.parse(quantity.decimal(amount)) == amount


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        quantity.parse("32 GB")


def message(*fields: tuple[int, bytes | int]) -> bytes:
    """Encode a protobuf message of varints and byte strings under 128 bytes."""
    parts = [
        struct.pack("BB", number << 3, value)
        if isinstance(value, int)
        else struct.pack("BB", number << 3 | 2, len(value)) + value
        for number, value in fields
    ]
    return b"".join(parts)


def test_a_protobuf_body_is_read() -> None:
    meta = message((1, b"x"), (2, b""), (11, message((1, b"k"), (2, b"v"))))
    container = message(
        (1, b"main"), (2, b"engine:1"), (8, message((1, message((1, b"cpu"), (2, message((1, b"1")))))))
    )
    pod = message((1, meta), (2, message((2, container), (4, 0), (11, 0))))
    body = b"k8s\x00" + message((1, message((1, b"v1"), (2, b"Pod"))), (2, pod))

    assert protobuf.decode(body) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "labels": {"k": "v"}},
        "spec": {
            "containers": [{"name": "main", "image": "engine:1", "resources": {"limits": {"cpu": "1"}}}],
            "terminationGracePeriodSeconds": 0,
        },
    }


@pytest.mark.parametrize(
    "body", [b"{}", b"k8s\x00\x0a\x7f", b"k8s\x00" + message((1, message((1, b"v1"), (2, b"Nope"))))]
)
def test_a_broken_protobuf_body_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        protobuf.decode(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".status.url", "http://x"),
        ('.status.conditions[?(@.type=="Ready")].status', "True"),
        (".status.items[*].name", "a,b"),
        (".status.items[1].name", "b"),
        (r".metadata.labels.a\.b/c", None),
        (".status.nothing.here", None),
    ],
)
def test_printer_columns_find_their_value(path: str, value: Any) -> None:
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    obj = {"status": {"url": "http://x", "conditions": conditions, "items": [{"name": "a"}, {"name": "b"}]}}

    assert _walk(obj, _json_path(path)) == value


def test_the_age_of_what_is_not_yet_is_zero() -> None:
    assert age("2999-01-01T00:00:00Z") == "0s"
    assert age(None) == "<unknown>"
