"""What a request asks for, read from its method, path and query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml

from sandbox.lite import errors, protobuf

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PATCHES = (JSON_PATCH, MERGE, STRATEGIC, APPLY)

_READ_VERBS = {"GET": "get", "HEAD": "get"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict, hash=False, compare=False)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass
class Request:
    """One request, taken apart. For paths that name no resource `resource` is empty."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    verb: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    user: User = ANONYMOUS
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be stored."""
        return self.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        """Who writes, for managedFields: the query, or the first word of the user agent."""
        return self.query.get("fieldManager") or self.headers.get("user-agent", "unknown").split("/")[0][:128]

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "application/json").split(";")[0].strip()

    def flag(self, name: str) -> bool:
        """Whether a query parameter is set to a true value."""
        return self.query.get(name, "").lower() in ("true", "1", "yes")

    def number(self, name: str, default: int) -> int:
        """Return a query parameter as a number. 400 when it is none."""
        try:
            return int(self.query.get(name) or default)
        except ValueError:
            wrong = f'strconv.ParseInt: parsing "{self.query[name]}": invalid syntax'
            raise errors.bad_request(wrong) from None

    def parsed(self) -> Any:
        """Decode the body, JSON or YAML. 400 when it is neither, 415 for other media types."""
        kind = self.content_type
        if "yaml" in kind:
            try:
                return orjson.loads(self.body)
            except orjson.JSONDecodeError:
                return self._yaml()
        if kind == protobuf.MEDIA_TYPE:
            try:
                return protobuf.decode(self.body)
            except ValueError as error:
                raise errors.bad_request(f"unable to decode the protobuf body: {error}") from None
        if kind.endswith("json"):
            try:
                return decode_json(self.body)
            except ValueError as error:
                raise errors.bad_request(f"couldn't get version/kind; json parse error: {error}") from None
        raise errors.unsupported_media_type("application/json, application/yaml")

    def _yaml(self) -> Any:
        try:
            return yaml.safe_load(self.body)
        except yaml.YAMLError as error:
            raise errors.bad_request(f"error decoding YAML: {error}") from None


def decode_json(body: bytes) -> Any:
    """Decode JSON. Raises ValueError in the words of Go's decoder."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if error.pos >= len(body) or not body.strip() or "end of data" in error.msg or "EOF" in error.msg:
            raise ValueError("unexpected end of JSON input") from None
        code = body[error.pos]  # Go looks at bytes
        letter = chr(code) if chr(code).isprintable() else f"\\u{code:04x}"
        raise ValueError(f"invalid character '{letter}' looking for beginning of value") from None


def parse(method: str, path: str, query: str, headers: dict[str, str]) -> Request:
    """Take a request apart as kube-apiserver does."""
    request = Request(method, path, dict(parse_qsl(query, keep_blank_values=True)), headers)
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        request.version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        request.group, request.version, rest = parts[1], parts[2], parts[3:]
    else:
        request.verb = method.lower()
        return request
    if rest[0] == "namespaces" and len(rest) > 2 and not (rest[2] in ("status", "finalize") and len(rest) == 3):
        request.namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1:
        request.namespace = rest[1]
    request.resource, request.name, request.subresource = [*rest, "", ""][:3]
    if len(rest) > 3:
        request.subresource = "/".join(rest[2:])
    request.verb = _verb(request)
    return request


def _verb(request: Request) -> str:
    if request.method in _READ_VERBS:
        if request.name:
            return "watch" if request.flag("watch") and not request.subresource else "get"
        return "watch" if request.flag("watch") else "list"
    verb = _VERBS.get(request.method, request.method.lower())
    return "deletecollection" if verb == "delete" and not request.name else verb
