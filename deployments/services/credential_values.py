"""What people enter for each kind of credential: which parts there are, which of them are secret, and what is refused.

Messages never repeat what was typed: they end in pages and answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from deployments.models import Credential
from deployments.services import source_checks
from deployments.services.errors import InvalidError
from deployments.sources.oci import is_same_registry
from portal.lib.hosts import why_not_public

Kind = Credential.Kind

VISIBLE = re.compile(r"[\x21-\x7e]+")
REGION = re.compile(r"[a-z0-9-]{1,40}")
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?")
GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
LONGEST = 8192
# Registries named in one sentence.
NAMED = 5
# Says nothing of what was typed: people paste secrets into wrong fields.
NOT_PUBLIC = "Nothing public can be there: write a host's public name or address, or one that an admin"
LEADS_INSIDE = "This name leads to an address that is not public: write that of a public server, or one that an admin"


@dataclass(frozen=True)
class Part:
    """One field of a credential. What is not secret is stored in the clear and shown."""

    name: str
    label: str
    help: str = ""
    secret: bool = True
    required: bool = True
    longest: int = 300
    lines: bool = False


PARTS: dict[str, tuple[Part, ...]] = {
    Kind.HF: (Part("token", "Token", "Begins with hf_; reading is enough."),),
    Kind.S3: (
        Part("access_key_id", "Access key ID", longest=128),
        Part("secret_access_key", "Secret access key"),
        Part("endpoint", "Endpoint", "Empty: Amazon's own. Else https://host", secret=False, required=False),
        Part("region", "Region", "As eu-central-1", secret=False, required=False, longest=40),
    ),
    Kind.GS: (Part("service_account", "Service account key", "The whole JSON file.", longest=LONGEST, lines=True),),
    Kind.REGISTRY: (
        Part("server", "Registry", "One that an admin listed, as registry.example.com; its port counts.", secret=False),
        Part("username", "User name", longest=200),
        Part("password", "Password or token", longest=4000),
    ),
}
# What each kind may be tested with, beside whether it is accepted at all.
TEST_EXAMPLES: dict[str, str] = {
    Kind.HF: "hf://meta-llama/Llama-3.1-8B-Instruct",
    Kind.S3: "s3://bucket/models/qwen2.5-7b",
    Kind.GS: "gs://bucket/models/qwen2.5-7b",
    Kind.REGISTRY: "oci://registry.example.com/models/granite:1.0",
}
NAMES = tuple(dict.fromkeys(part.name for parts in PARTS.values() for part in parts))


@dataclass(frozen=True, repr=False)
class Entered:
    """What somebody typed, checked: the secret parts, and the others."""

    value: Mapping[str, str]
    settings: Mapping[str, str]


@sensitive_variables()
def entered(kind: str, fields: Mapping[str, Any]) -> Entered:
    """Check what was entered for a kind; InvalidError names the field that is wrong, and says nothing of its value."""
    parts = PARTS[kind]
    for name, text in fields.items():
        if text not in (None, "") and name not in {part.name for part in parts}:
            raise _wrong(name, f"A credential of the kind “{Credential.Kind(kind).label}” has no such part.")
    found: dict[str, str] = {}
    for part in parts:
        text = fields.get(part.name)
        if text in (None, ""):
            if part.required:
                raise _wrong(part.name, "This field is required.", code="required")
            continue
        if not isinstance(text, str) or len(text) > part.longest:
            raise _wrong(part.name, f"Must be text of at most {part.longest:,} characters.")
        text = text.strip()
        if not part.lines and not VISIBLE.fullmatch(text):
            raise _wrong(part.name, "May not contain spaces, accents or control characters.")
        found[part.name] = text
    _CHECKS[Kind(kind)](found)
    return Entered(
        value={part.name: found[part.name] for part in parts if part.secret and part.name in found},
        settings={part.name: found[part.name] for part in parts if not part.secret and part.name in found},
    )


@sensitive_variables()
def refuse_inside(what: Entered) -> None:
    """InvalidError where a server that was entered is public by its name alone, and the name leads inside.

    Asks the resolver, so never with anything locked. A name that it does not know now may be a right one.
    """
    if source_checks.why_inside(what.settings.get("endpoint", "")):
        raise _wrong("endpoint", f"{LEADS_INSIDE} configured (OBJECT_STORES).")


def _check_hf(found: dict[str, str]) -> None:
    if len(found["token"]) < 8:
        raise _wrong("token", "This is too short for a token.")


def _check_s3(found: dict[str, str]) -> None:
    if "region" in found and not REGION.fullmatch(found["region"]):
        raise _wrong("region", "Use lower-case letters, digits and “-”, as eu-central-1.")
    if "endpoint" not in found:
        return
    try:
        parts = urlsplit(found["endpoint"])
        port = parts.port
    except ValueError:
        raise _wrong("endpoint", "That is not a web address.") from None
    if parts.scheme not in {"http", "https"} or not HOST.fullmatch(parts.netloc) or parts.path.strip("/"):
        raise _wrong("endpoint", "Write https:// and the host alone, without bucket, user name or password.")
    if parts.query or parts.fragment:
        raise _wrong("endpoint", "Write https:// and the host alone.")
    found["endpoint"] = f"{parts.scheme}://{parts.netloc.lower()}"
    if found["endpoint"] not in settings.OBJECT_STORES and (parts.scheme != "https" or port not in (None, 443)):
        raise _wrong("endpoint", "Only https:// on port 443, or an address that an admin configured.")
    if found["endpoint"] not in settings.OBJECT_STORES and why_not_public(parts.hostname or ""):
        # KServe's loader would take the keys there, past everything that Slipway looks up itself.
        raise _wrong("endpoint", f"{NOT_PUBLIC} configured (OBJECT_STORES).")


def _check_gs(found: dict[str, str]) -> None:
    try:
        key = orjson.loads(found["service_account"])
    except orjson.JSONDecodeError:
        raise _wrong("service_account", "This is not JSON: paste the whole key file.") from None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        # Keys of other types can name programs and addresses that would be run and asked.
        raise _wrong("service_account", "Only the key of a service account is taken (its type says so).")
    for name in ("client_email", "private_key"):
        if not isinstance(key.get(name), str) or not key[name]:
            raise _wrong("service_account", f"The key has no {name}.")
    if not key["private_key"].startswith("-----BEGIN PRIVATE KEY-----"):
        raise _wrong("service_account", "Its private_key is no private key.")
    if key.get("token_uri", GOOGLE_TOKEN_URI) != GOOGLE_TOKEN_URI:
        raise _wrong("service_account", f"Its token_uri must be {GOOGLE_TOKEN_URI}.")


def _check_registry(found: dict[str, str]) -> None:
    found["server"] = found["server"].removeprefix("https://").rstrip("/").lower()
    if not HOST.fullmatch(found["server"]):
        raise _wrong("server", "Write the host of the registry alone, as registry.example.com.")
    listed = source_checks.listed_registries()
    if not any(is_same_registry(found["server"], entry) for entry in listed):
        # The port of HTTPS goes without saying, and is no part of the name by which nodes look for the login.
        found["server"] = found["server"].removesuffix(":443")
    if not any(is_same_registry(found["server"], entry) for entry in listed):
        raise _wrong("server", _not_listed(listed))
    if ":" in found["username"]:
        raise _wrong("username", "A user name has no “:”.")


def _not_listed(listed: Sequence[str]) -> str:
    """Images come from nowhere else: a login for another registry opens nothing, and would be sent there for that."""
    if not listed:
        return "An admin has listed no registry that images may come from (SLIPWAY_OCI_REGISTRIES)."
    hosts = list(dict.fromkeys(entry.partition("/")[0] for entry in listed))
    names = ", ".join(hosts[:NAMED]) + (", …" if len(hosts) > NAMED else "")
    return (
        f"Images may come from {names} alone, port included: write one of these, or ask an admin to list yours "
        "(SLIPWAY_OCI_REGISTRIES)."
    )


_CHECKS = {Kind.HF: _check_hf, Kind.S3: _check_s3, Kind.GS: _check_gs, Kind.REGISTRY: _check_registry}


def _wrong(name: str, message: str, *, code: str = "") -> InvalidError:
    shown = name if name in NAMES else "value"
    return InvalidError(message, field=shown, pointer=f"/{shown}", code=code)
