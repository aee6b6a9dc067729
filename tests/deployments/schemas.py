"""Objects against the schemas of their kinds, as strictly as an API server can be told to be, rules in CEL included."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import kubernetes_validate

from sandbox import definitions
from sandbox.lite import rules
from sandbox.lite.defaults import fill_builtin
from sandbox.lite.resources import Resource, builtin_resources, crd_resources
from sandbox.lite.schema import Schema
from sandbox.lite.schema_validator import validator
from sandbox.lite.structural import fill_defaults, prune, type_error
from sandbox.lite.validation import content, validate

# The Kubernetes whose kinds these are; the real ground of the scenarios is of this one too.
CORE = "1.36"
Object = dict[str, Any]


def complaints(obj: Object) -> list[str]:
    """Everything that is wrong with an object, each with the path of its field; empty for a valid one."""
    place = obj["apiVersion"], obj["kind"]
    if place in custom():
        return _of_custom(custom()[place], obj)
    if place not in core():
        return [f"{place[1]} of {place[0]} is no kind that is known here."]
    return _of_core(core()[place], obj)


@cache
def custom() -> dict[tuple[str, str], Resource]:
    """Kinds that come with a CustomResourceDefinition, every version that is served."""
    found = (resource for path in definitions.of_lite() for resource in crd_resources(json.loads(path.read_text())))
    return {(resource.api_version, resource.kind): resource for resource in found}


@cache
def core() -> dict[tuple[str, str], Resource]:
    """Kinds that come with Kubernetes."""
    return {(resource.api_version, resource.kind): resource for resource in builtin_resources()}


def rules_of(obj: Object) -> int:
    """How many CEL rules the schema of an object's kind has."""
    resource = custom().get((obj["apiVersion"], obj["kind"]))
    return json.dumps(resource.crd_schema).count(f'"{rules.KEYWORD}"') if resource else 0


def _of_custom(resource: Resource, obj: Object) -> list[str]:
    made = copy.deepcopy(obj)
    if wrong := type_error(made["metadata"], Schema.META):
        return [wrong]
    unknown = prune(made, resource.schema)
    fill_defaults(made, resource.schema)
    causes = [
        *validate(resource, made, None),
        *validator(resource).causes(made),
        *rules.duplicates(made, resource.schema),
        *rules.check(resource, made, None).causes,
    ]
    return [*(f"{path}: unknown field" for path in unknown), *(f"{cause.field}: {cause.message}" for cause in causes)]


def _of_core(resource: Resource, obj: Object) -> list[str]:
    try:
        kubernetes_validate.validate(obj, CORE, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    # What its schema cannot say: names, labels, selectors, amounts.
    made = copy.deepcopy(obj)
    if resource.storage_key == "batch/jobs":  # of which the pod's own rules are asked, defaults included
        fill_builtin(resource, made, None)
    return [
        f"{cause.field}: {cause.message}"
        for cause in (*validate(resource, made, None), *content(resource, made, None, ""))
    ]
