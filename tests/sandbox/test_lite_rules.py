"""CEL rules of custom resources' schemas; each answer was seen from kube-apiserver 1.36.3."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from sandbox import definitions
from sandbox.lite import rules
from sandbox.lite.expressions import ExpressionFailed, compiled, escape, value_of
from sandbox.lite.resources import crd_resources
from sandbox.lite.schema import Schema
from tests.sandbox.conftest import JSON_PATCH, MERGE, Api, Obj, named

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "rules.slipway.dev"
TEXT: Obj = {"type": "string"}
NUMBER: Obj = {"type": "integer"}
UNCHECKED = {
    "reason": "FieldValueInvalid",
    "message": "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
    "field": "<nil>",
}


def ruled(schema: Obj, *given: Obj | str) -> Obj:
    """Return a schema with rules; a string is a rule without a message."""
    return schema | {"x-kubernetes-validations": [one if isinstance(one, dict) else {"rule": one} for one in given]}


SPEC: Obj = {
    "plain": ruled(TEXT, 'self != "bad"'),
    "told": ruled(TEXT, {"rule": 'self != "bad"', "message": " must not be bad "}),
    "made": ruled(TEXT, {"rule": 'self != "bad"', "messageExpression": "'got ' + self"}),
    "failing": ruled(
        TEXT, {"rule": 'self != "bad"', "messageExpression": "string(1 / (size(self) - 3))", "message": "fallback"}
    ),
    "number": ruled(NUMBER, "self < 10"),
    "decimal": ruled({"type": "number"}, "self < 2.5"),
    "fixed": ruled(TEXT, {"rule": "self == oldSelf", "message": "immutable"}),
    "growing": ruled(
        NUMBER,
        {"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": True, "message": "no shrinking"},
    ),
    "first": ruled(NUMBER, {"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": True, "message": "from 1"}),
    "object": ruled(
        {
            "type": "object",
            "properties": {
                "a": NUMBER,
                "b": NUMBER,
                "s": TEXT,
                "namespace": TEXT,
                "x-y": TEXT,
                "m": {"type": "object", "additionalProperties": TEXT},
            },
        },
        {
            "rule": "!has(self.a) || !has(self.b) || self.a <= self.b",
            "message": "a above b",
            "fieldPath": ".a",
            "reason": "FieldValueForbidden",
        },
        {"rule": '!has(self.s) || self.s != "dup"', "reason": "FieldValueDuplicate", "fieldPath": ".s"},
        {"rule": '!has(self.s) || self.s != "req"', "reason": "FieldValueRequired", "message": "really"},
        {"rule": '!has(self.m) || !("bad" in self.m)', "fieldPath": ".m['bad']", "message": "no bad"},
        {"rule": '!has(self.__namespace__) || self.__namespace__ != "x"', "message": "ns"},
        {"rule": '!has(self.x__dash__y) || self.x__dash__y != "x"', "message": "dash"},
    ),
    "list": ruled({"type": "array", "items": ruled(NUMBER, "self >= 0")}, "self.size() < 3", "self[1] < 100"),
    "keyed": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": ruled(
            {"type": "object", "required": ["name"], "properties": {"name": TEXT, "v": NUMBER}},
            {"rule": "self.v >= oldSelf.v", "message": "only up"},
        ),
    },
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": TEXT},
    "map": ruled(
        {"type": "object", "additionalProperties": ruled(TEXT, 'self != "bad"')},
        'self.all(k, k.split("-")[0].size() < 3)',
    ),
    "wrong": ruled({"type": "object", "properties": {"a": NUMBER}}, "10 / self.a > 1"),
    "length": ruled(TEXT, "duration(self) > duration('1s')"),
    "either": ruled({"x-kubernetes-int-or-string": True}, "self < 10"),
    "when": ruled({"type": "string", "format": "date-time"}, "self > timestamp('2020-01-01T00:00:00Z')"),
    "needed": {"type": "object", "required": ["r"], "properties": {"r": TEXT}},
}


def definition(*, strict: bool = True) -> Obj:
    """Return the CustomResourceDefinition of the kind all tests here use; not strict, it has no rules."""
    schema = ruled(
        {
            "type": "object",
            "properties": {
                "spec": {"type": "object", "properties": copy.deepcopy(SPEC)},
                "status": {"type": "object", "properties": {"n": ruled(NUMBER, "self < 5")}},
            },
        },
        {"rule": 'self.metadata.name != "forbidden"', "message": "bad name"},
    )
    if not strict:
        schema = _without(schema)
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    spec = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "ruleds", "kind": "Ruled"},
        "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
    }
    return named("CustomResourceDefinition", f"ruleds.{GROUP}", "apiextensions.k8s.io/v1", spec=spec)


def _without(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    return {name: _without(value) for name, value in schema.items() if name != "x-kubernetes-validations"}


@pytest.fixture(scope="module")
def ruleds(api: Api) -> str:
    """The path of the collection."""
    assert api.post(CRDS, definition()).status_code == 201
    team = api.namespace("team-rules")
    return f"/apis/{GROUP}/v1{team.removeprefix('/api/v1')}/ruleds"


def thing(name: str, **spec: Any) -> Obj:
    return named("Ruled", name, f"{GROUP}/v1", spec=spec)


def cause(field: str, message: str, reason: str = "FieldValueInvalid") -> Obj:
    return {"reason": reason, "message": message, "field": field}


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"plain": "bad"}, [cause("spec.plain", 'Invalid value: "bad": failed rule: self != "bad"')]),
        ({"told": "bad"}, [cause("spec.told", 'Invalid value: "bad": must not be bad')]),
        ({"made": "bad"}, [cause("spec.made", 'Invalid value: "bad": got bad')]),
        ({"failing": "bad"}, [cause("spec.failing", 'Invalid value: "bad": fallback')]),
        ({"number": 12}, [cause("spec.number", "Invalid value: 12: failed rule: self < 10")]),
        ({"decimal": 3}, [cause("spec.decimal", "Invalid value: 3: failed rule: self < 2.5")]),
        ({"first": 2}, [cause("spec.first", "Invalid value: 2: from 1")]),
        ({"object": {"a": 2, "b": 1}}, [cause("spec.object.a", "Forbidden: a above b", "FieldValueForbidden")]),
        ({"object": {"s": "dup"}}, [cause("spec.object.s", "Duplicate value", "FieldValueDuplicate")]),
        ({"object": {"s": "req"}}, [cause("spec.object", "Required value: really", "FieldValueRequired")]),
        ({"object": {"m": {"bad": "1"}}}, [cause("spec.object.m[bad]", "Invalid value: no bad")]),
        ({"object": {"namespace": "x"}}, [cause("spec.object", "Invalid value: ns")]),
        ({"object": {"x-y": "x"}}, [cause("spec.object", "Invalid value: dash")]),
        (
            {"list": [1, -1, 500]},
            [
                cause("spec.list", "Invalid value: failed rule: self.size() < 3"),
                cause("spec.list[1]", "Invalid value: -1: failed rule: self >= 0"),
            ],
        ),
        (
            {"list": [1]},
            [cause("spec.list", 'Invalid value: "array": index out of bounds: 1 evaluating rule: self[1] < 100')],
        ),
        (
            {"keyed": [{"name": "a"}, {"name": "a"}, {"name": "a"}]},
            [cause("spec.keyed[1]", 'Duplicate value: {"name":"a"}', "FieldValueDuplicate")],
        ),
        ({"set": ["a", "b", "a"]}, [cause("spec.set[2]", 'Duplicate value: "a"', "FieldValueDuplicate")]),
        (
            {"map": {"abcd-e": "1"}},
            [cause("spec.map", 'Invalid value: failed rule: self.all(k, k.split("-")[0].size() < 3)')],
        ),
        ({"map": {"a-e": "bad"}}, [cause("spec.map[a-e]", 'Invalid value: "bad": failed rule: self != "bad"')]),
        (
            {"wrong": {}},
            [cause("spec.wrong", 'Invalid value: "object": no such key: a evaluating rule: 10 / self.a > 1')],
        ),
        (
            {"wrong": {"a": 0}},
            [cause("spec.wrong", 'Invalid value: "object": division by zero evaluating rule: 10 / self.a > 1')],
        ),
        (
            {"length": "xx"},
            [
                cause(
                    "spec.length",
                    "Invalid value: \"string\": type conversion error from 'string' to 'google.protobuf.Duration' "
                    "evaluating rule: duration(self) > duration('1s')",
                )
            ],
        ),
        (
            {"either": "x"},
            [
                cause(
                    "spec.either",
                    "Invalid value: \"\": 'no such overload': call arguments did not match a supported operator, "
                    "function or macro signature for rule: self < 10",
                )
            ],
        ),
        (
            {"when": "2019-01-01T00:00:00Z"},
            [
                cause(
                    "spec.when",
                    "Invalid value: \"2019-01-01T00:00:00Z\": failed rule: self > timestamp('2020-01-01T00:00:00Z')",
                )
            ],
        ),
        ({"needed": {}, "number": 12}, [cause("spec.needed.r", "Required value", "FieldValueRequired"), UNCHECKED]),
    ],
)
def test_what_breaks_a_rule_is_told(api: Api, ruleds: str, spec: Obj, causes: list[Obj]) -> None:
    answer = api.post(ruleds, thing("broken", **spec), dryRun="All")

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert answer.json()["details"]["causes"] == causes
    if len(causes) == 1:
        where, said = causes[0]["field"], causes[0]["message"]
        assert answer.json()["message"] == f'Ruled.{GROUP} "broken" is invalid: {where}: {said}'


@pytest.mark.parametrize(
    "spec",
    [
        {"plain": "good", "number": 3, "decimal": 2, "first": 1, "list": [1, 2], "either": 3},
        {"length": "1m30s", "map": {"ab-cdef": "x"}, "when": "2021-01-01T00:00:00+02:00", "object": {}},
    ],
)
def test_what_keeps_the_rules_is_taken(api: Api, ruleds: str, spec: Obj) -> None:
    assert api.post(ruleds, thing("whole", **spec), dryRun="All").status_code == 201


def test_a_rule_of_the_whole_object_has_no_path(api: Api, ruleds: str) -> None:
    answer = api.post(ruleds, thing("forbidden"))

    assert answer.json()["message"] == f'Ruled.{GROUP} "forbidden" is invalid: <nil>: Invalid value: bad name'


@pytest.fixture(scope="module")
def stored(api: Api, ruleds: str) -> str:
    """The path of an object that updates are tried on."""
    keyed = [{"name": "a", "v": 1}, {"name": "b", "v": 5}]
    made = api.post(ruleds, thing("stored", fixed="a", growing=5, first=1, keyed=keyed))
    assert made.status_code == 201, made.text
    return f"{ruleds}/stored"


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({"fixed": "b"}, cause("spec.fixed", 'Invalid value: "b": immutable')),
        ({"growing": 4}, cause("spec.growing", "Invalid value: 4: no shrinking")),
        ({"keyed": [{"name": "b", "v": 4}, {"name": "a", "v": 1}]}, cause("spec.keyed[0]", "Invalid value: only up")),
        ({"fixed": None}, None),
        ({"growing": 6, "first": 7}, None),
        ({"keyed": [{"name": "c", "v": 0}, {"name": "a", "v": 3}]}, None),
    ],
)
def test_transitions(api: Api, stored: str, spec: Obj, refused: Obj | None) -> None:
    answer = api.patch(stored, {"spec": spec}, MERGE, dryRun="All")

    assert answer.status_code == (422 if refused else 200)
    if refused:
        assert answer.json()["details"]["causes"] == [refused]


def test_every_door_asks_the_rules(api: Api, ruleds: str, stored: str) -> None:
    broken = cause("spec.number", "Invalid value: 12: failed rule: self < 10")
    step = {"op": "add", "path": "/spec/number", "value": 12}
    answers = [
        api.apply(f"{ruleds}/applied", thing("applied", number=12)),
        api.apply(stored, thing("stored", number=12), force=True),
        api.patch(stored, [step], JSON_PATCH),
        api.put(stored, api.get(stored).json() | {"spec": {"number": 12}}),
    ]

    assert [answer.status_code for answer in answers] == [422] * 4
    assert all(answer.json()["details"]["causes"] == [broken] for answer in answers)
    status = api.patch(f"{stored}/status", {"status": {"n": 9}}, MERGE)
    assert status.json()["details"]["causes"] == [cause("status.n", "Invalid value: 9: failed rule: self < 5")]


def test_what_lies_about_its_kind_is_held_to_the_rules_too(api: Api, ruleds: str) -> None:
    answer = api.post(ruleds, thing("liar", number=12) | {"kind": "Nope"})

    assert answer.json()["details"]["causes"] == [
        cause("kind", 'Invalid value: "Nope": must be Ruled'),
        cause("spec.number", "Invalid value: 12: failed rule: self < 10"),
    ]


def test_of_status_alone_the_path_begins_below_it(api: Api, stored: str) -> None:
    answer = api.patch(f"{stored}/status", {"status": {"n": "x"}}, MERGE)

    wrong = cause("status.n", 'Invalid value: "string": n in body must be of type integer: "string"')
    assert answer.json()["details"]["causes"] == [wrong | {"reason": "FieldValueTypeInvalid"}, UNCHECKED]


def test_what_was_wrong_before_and_stays_is_only_warned_of(api: Api, ruleds: str) -> None:
    path = f"{CRDS}/ruleds.{GROUP}"
    _replace(api, path, definition(strict=False))
    api.post(ruleds, thing("older", number=12, list=[1, 2, 3], map={"abcd-e": "bad"}))
    _replace(api, path, definition())

    touched = api.patch(f"{ruleds}/older", {"spec": {"plain": "new"}}, MERGE)
    changed = api.patch(f"{ruleds}/older", {"spec": {"number": 13}}, MERGE)

    assert touched.status_code == 200
    assert '299 - "spec.number: Invalid value: 12: failed rule: self < 10"' in touched.headers["warning"]
    assert changed.json()["details"]["causes"] == [cause("spec.number", "Invalid value: 13: failed rule: self < 10")]
    assert "spec.list: Invalid value" in changed.headers["warning"]


def _replace(api: Api, path: str, crd: Obj) -> None:
    current = api.get(path).json()
    assert api.put(path, current | {"spec": crd["spec"]}).status_code == 200


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("plain", "plain"),
        ("namespace", "__namespace__"),
        ("x-y", "x__dash__y"),
        ("a.b/c", "a__dot__b__slash__c"),
        ("a__b", "a__underscores__b"),
        ("1st", None),
        ("a b", None),
    ],
)
def test_names_are_spelled_for_expressions(name: str, spelled: str | None) -> None:
    assert escape(name) == spelled


def test_of_metadata_expressions_see_the_name_alone() -> None:
    seen = value_of({"metadata": {"name": "x", "labels": {"a": "b"}}}, Schema({"type": "object"}), root=True)

    assert seen == {"metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("'a/b'.split('/')", ["a", "b"]),
        ("[1, 2, 2].isSorted()", True),
        ("'a1b22'.find('[0-9]+')", "1"),
        ("'a1b22'.findAll('[0-9]+')", ["1", "22"]),
        ("isQuantity('1Gi') && !isQuantity('x')", True),
    ],
)
def test_functions_of_kubernetes(source: str, value: Any) -> None:
    assert compiled(source).evaluate({}) == value


def test_an_expression_is_compiled_once() -> None:
    assert compiled("1 + 1") is compiled("1 + 1")
    with pytest.raises(ExpressionFailed, match="compilation failed"):
        compiled("1 +")


def test_every_rule_of_the_kinds_in_the_sandbox_compiles() -> None:
    def walk(node: rules.Node) -> int:
        below = [*node.fields.values(), *(one for one in (node.items, node.entries) if one)]
        return sum(bool(rule.expression) for rule in node.rules) + sum(walk(one) for one in below)

    counts = {}
    for path in definitions.of_lite():
        for resource in crd_resources(orjson.loads(path.read_bytes())):
            node = rules.rules_of(resource)
            if node is not None:
                counts[resource.kind, resource.version] = walk(node)
    assert counts["HTTPRoute", "v1"] > 40
    assert counts["LLMInferenceService", "v1alpha2"] > 40
