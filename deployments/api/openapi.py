"""What the OpenAPI document needs to know beyond the views: how tokens are sent, and the spec's own schema."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer slp_…`."""

    target_class = "deployments.api.auth.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """The scheme as OpenAPI names it."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "slp_…"}


def inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of pydantic as OpenAPI 3.0 takes it: no references, no type *null*."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return inlined({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    choices = schema.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        plain = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
        return inlined({**plain, **(rest[0] if len(rest) == 1 else {"anyOf": rest}), "nullable": True}, definitions)
    return {key: _value(key, value, definitions) for key, value in schema.items() if key not in {"$defs", "title"}}


def _value(key: str, value: Any, definitions: dict[str, Any]) -> Any:
    if key == "properties":
        return {name: inlined(inner, definitions) for name, inner in value.items()}
    if isinstance(value, dict) and key != "default":
        return inlined(value, definitions)
    if isinstance(value, list):
        return [inlined(item, definitions) if isinstance(item, dict) else item for item in value]
    return value


def with_idempotency(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Name the header Idempotency-Key at every POST: it is read for all of them in one place."""
    parameter = {
        "in": "header",
        "name": "Idempotency-Key",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": "Sent again with the same key within a day, the request is answered again and not done again",
    }
    for path in result["paths"].values():
        if "post" in path:
            path["post"].setdefault("parameters", []).append(parameter)
    return result
