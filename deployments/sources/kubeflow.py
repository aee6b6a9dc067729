"""Models of a Kubeflow Model Registry: which artifact an entry stands for. Pure; whoever calls brings the HTTP.

`model-registry://name/version`. KServe needs an add-on to load these, and then takes few kinds of artifacts; so an
entry is resolved to the address of its newest model artifact, which then counts as the source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode, plain

API = "/api/model_registry/v1alpha3"
PREFIX = "model-registry://"
LATER = "You can go on: it is looked up again before anything starts."
NOT_SET_UP = "Have an admin look at MODEL_REGISTRY_URL and at the server. " + LATER
LONGEST_NAME, LONGEST_ADDRESS, LONGEST_TOKEN = 255, 512, 1024
# Artifacts asked for at once, and how often: documents of a version are listed among its models.
PAGE, MOST_PAGES = 50, 4
# States of an artifact that is not there: still to come, or taken away.
AWAY = frozenset({"PENDING", "MARKED_FOR_DELETION", "DELETED", "ABANDONED"})
# Names may hold anything, as those of the hub a “/”; what an address cannot hold is written %2F.
_PART = r"(?:[A-Za-z0-9._~+@,=-]|%[0-9A-Fa-f]{2})+"
_ENTRY = re.compile(rf"{PREFIX}(?P<name>{_PART})/(?P<version>{_PART})")
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
# How the registry's own client writes a model of the hub: one of its files. Of one in a folder, the model is elsewhere.
_HUB_FILE = re.compile(
    r"https://huggingface\.co/(?P<id>[^/?#]+/[^/?#]+)/resolve/(?P<revision>[^/?#]+)/(?!(?i:[^?#]+\.gguf)\Z)[^/?#]+"
)


class _NotTakenError(Exception):
    """Why an entry stands for nothing; carries what is said of it."""

    def __init__(self, code: SourceCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.check = SourceCheck(code, message, remedy)


def parse_entry(uri: str) -> tuple[str, str]:
    """Name and version of an address as they are written in it; ValueError, in words for people."""
    match = _ENTRY.fullmatch(uri)
    if match is None:
        raise ValueError(
            "An entry of the registry is written model-registry://name/version. In names a space is written %20, a “/” "
            "%2F, and a “:” %3A."
        )
    for part in match.groups():
        _decoded(part)
    return match["name"], match["version"]


def resolve(uri: str, ask: Ask, server: str) -> SourceCheck:
    """The newest model artifact of a version: a check whose `loads` is its address, or says why there is none."""
    name, version = map(_decoded, parse_entry(uri))
    base = server.rstrip("/") + API
    try:
        model = _entity(ask(f"{base}/registered_model?name={quote(name, safe='')}"), "model", name, "")
        of = f"parentResourceId={quote(_id_of(model), safe='')}"
        entry = _entity(
            ask(f"{base}/model_version?name={quote(version, safe='')}&{of}"), "version", version, f" of {name}"
        )
        artifact = _newest(uri, f"{base}/model_versions/{_id_of(entry)}/artifacts", ask)
        address, where = _address(uri, artifact)
    except _NotTakenError as error:
        return error.check
    retired = next((kind for kind, of in (("version", entry), ("model", model)) if of.get("state") == "ARCHIVED"), "")
    note = f" The registry has archived this {retired}: whoever keeps it may take it away." if retired else ""
    return SourceCheck(SourceCode.FOUND, f"{uri} is {address}{where}.{note}", "", None, address)


def _decoded(part: str) -> str:
    """A name as the registry holds it; ValueError for what no registry can hold or no page can show."""
    try:
        name = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"“{part[:60]}” is no text: the bytes after each % must be UTF-8.") from None
    if not name.isprintable() or not name.strip() or len(name) > LONGEST_NAME:
        raise ValueError(
            f"Names in the registry have 1 to {LONGEST_NAME} characters, none of them a control character."
        )
    return name


def _entity(reply: Reply, kind: str, name: str, of: str) -> Mapping[str, Any]:
    """The model or version of this name."""
    if reply.status != 200:
        raise _refused(f"no {kind} “{name}”{of}", reply)
    if not isinstance(reply.json, Mapping):
        raise _no_registry(reply)
    found = reply.json.get("name")
    if isinstance(found, str) and found != name:
        # On MySQL it finds names that differ in case or accents; on PostgreSQL it finds none of them.
        raise _NotTakenError(
            SourceCode.NOT_FOUND,
            f"The registry has no {kind} “{name}”{of}, but “{plain(found, LONGEST_NAME)}”.",
            "Write it as the registry does.",
        )
    return reply.json


def _id_of(entity: Mapping[str, Any]) -> str:
    found = str(entity.get("id") or "")
    if not _ID.fullmatch(found):
        raise _no_registry(Reply(200))
    return found


def _newest(uri: str, listing: str, ask: Ask) -> Mapping[str, Any]:
    """The newest artifact that is a model and is there."""
    away, token = "", ""
    for _ in range(MOST_PAGES):
        more = f"&nextPageToken={quote(token, safe='')}" if token else ""
        reply = ask(f"{listing}?orderBy=CREATE_TIME&sortOrder=DESC&pageSize={PAGE}{more}")
        if reply.status != 200:
            raise _refused(f"no artifacts of {uri}", reply)
        items = reply.json.get("items") if isinstance(reply.json, Mapping) else None
        if not isinstance(items, list):
            raise _no_registry(reply)
        # Documents lie beside the weights, and are often registered after them.
        models = [item for item in items if isinstance(item, Mapping) and item.get("artifactType") == "model-artifact"]
        for item in models:
            if item.get("state") not in AWAY:
                return item
            away = away or str(item["state"])
        token = reply.json.get("nextPageToken")
        if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
            break
    if away:
        raise _NotTakenError(
            SourceCode.UNUSABLE,
            f"The registry has no model of {uri} that is there: the newest is {away}.",
            "Wait for it where it is on its way, register it again, or choose another version.",
        )
    raise _NotTakenError(
        SourceCode.UNUSABLE,
        f"The registry names no model artifact for {uri}.",
        "Register one, or choose another version.",
    )


def _address(uri: str, artifact: Mapping[str, Any]) -> tuple[str, str]:
    """The address of an artifact as Slipway writes it, and in words where else it says that it lies."""
    found = artifact.get("uri")
    if not isinstance(found, str) or not found or len(found) > LONGEST_ADDRESS:
        raise _NotTakenError(
            SourceCode.UNUSABLE,
            f"The artifact of {uri} in the registry has no address that can be taken.",
            "Have its owner enter one there, as s3://… or hf://…, or choose another version.",
        )
    if hub := _HUB_FILE.fullmatch(found):
        revision = unquote(hub["revision"])
        return f"hf://{hub['id']}" + (f":{revision}" if revision != "main" else ""), ""
    address, question, query = found.partition("?")
    if not question or not address.startswith("s3://"):
        return found, ""
    # The registry's client and console write the server of a bucket behind its address.
    place = parse_qs(query)
    if not place.keys() <= {"endpoint", "defaultRegion"} or "endpoint" not in place:
        return found, ""
    return address, f", kept at {place['endpoint'][0]}: its credential names that endpoint"


def _no_registry(reply: Reply) -> _NotTakenError:
    return _NotTakenError(
        SourceCode.UNREACHABLE,
        f"What answers in the registry's place does not answer as one does (status {reply.status}).",
        NOT_SET_UP,
    )


def _refused(what: str, reply: Reply) -> _NotTakenError:
    """Why there was no answer; the registry's own words where it has some."""
    said = reply.json.get("message") if isinstance(reply.json, Mapping) else None
    if reply.status == 404:
        # Its own answers are JSON. A path that nobody serves is a plain page, of whichever server it is.
        if not isinstance(said, str):
            return _no_registry(reply)
        return _NotTakenError(SourceCode.NOT_FOUND, f"The registry has {what}.", "Check name and version.")
    if reply.status in {401, 403}:
        return _NotTakenError(
            SourceCode.UNUSABLE,
            "The registry asks for a login, and Slipway asks it without one.",
            "Name the artifact itself, as s3://… or gs://…, with a credential of the team.",
        )
    words = f"{reply.said}: {plain(said, 200)}" if isinstance(said, str) else reply.said
    return _NotTakenError(SourceCode.UNREACHABLE, f"The registry could not be asked ({words}).", LATER)
