"""Registries of images, as the OCI distribution API has them: which digest a tag names. Pure; whoever calls brings the
HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode
from deployments.sources.oci import ALIASES, SCHEME, Image

LATER = "You can go on where the address names a digest; else try again later."
# Where the registry of a name answers, when that is not the name itself.
SERVERS = dict.fromkeys(ALIASES, "registry-1.docker.io")
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
# What weights in an image mean for who serves them.
MEANING = "OCI image: nodes keep it, and mount it without a download"
_CHALLENGE = re.compile(r'(realm|service|scope)="([^"]{1,300})"')
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


def check(image: Image, ask: Ask, *, base: str = "", login: tuple[str, str] | None = None) -> SourceCheck:
    """Look an image up; the check's `loads` names it by digest. `base` is the server's address where it is another."""
    server = base or server_of(image.registry)
    version = image.digest or image.tag or "latest"
    url = f"{server}/v2/{image.repository}/manifests/{version}"
    headers = {"Accept": _ACCEPT}
    reply = ask(url, headers={**headers, **_basic(login)})
    challenge = reply.headers.get("www-authenticate", "")
    if reply.status == 401 and challenge.lower().startswith("bearer"):
        token = _token(challenge, image, ask, login)
        if isinstance(token, SourceCheck):
            return token
        reply = ask(url, headers={**headers, "Authorization": f"Bearer {token}"})
    if reply.status != 200 or not isinstance(reply.json, Mapping):
        return _refused(image, version, reply, with_login=login is not None)
    said = reply.headers.get("docker-content-digest", "")
    made = f"sha256:{hashlib.sha256(reply.body).hexdigest()}"
    if said and said != made and _DIGEST.fullmatch(said):
        return SourceCheck(
            SourceCode.UNUSABLE, "The registry's answer is not what its digest says.", "Try again later."
        )
    if image.digest and image.digest != made:
        return SourceCheck(SourceCode.UNUSABLE, "The registry gave another image than that of this digest.", LATER)
    said = f"Found {image.name} at {made[:19]} ({MEANING})."
    return SourceCheck(SourceCode.FOUND, said, "", None, SCHEME + image.at(made))


def server_of(registry: str) -> str:
    """Where the registry of a name answers, over HTTPS."""
    return f"https://{SERVERS.get(registry, registry)}"


def _basic(login: tuple[str, str] | None) -> dict[str, str]:
    if login is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def _token(challenge: str, image: Image, ask: Ask, login: tuple[str, str] | None) -> str | SourceCheck:
    """A token for pulling this image, from whoever the registry names; or why there is none."""
    said = dict(_CHALLENGE.findall(challenge))
    realm = said.get("realm", "")
    if urlsplit(realm).scheme not in {"http", "https"}:
        return SourceCheck(SourceCode.UNREACHABLE, "The registry does not say where its tokens are.", LATER)
    query = {"service": said.get("service", ""), "scope": f"repository:{image.repository}:pull"}
    reply = ask(f"{realm}?{urlencode(query, quote_via=quote)}", headers=_basic(login))
    if reply.status != 200 or not isinstance(reply.json, Mapping):
        return _refused(image, image.digest or image.tag, reply, with_login=login is not None)
    token = reply.json.get("token") or reply.json.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return SourceCheck(SourceCode.UNREACHABLE, "The registry gave no token.", LATER)
    return token


def _refused(image: Image, version: str, reply: Reply, *, with_login: bool) -> SourceCheck:
    if reply.status == 404:
        return SourceCheck(
            SourceCode.NOT_FOUND,
            f"{image.registry} has no {image.repository} of “{version[:80]}”.",
            "Check name and tag.",
        )
    if reply.status == 401 and with_login:
        return SourceCheck(
            SourceCode.BAD_TOKEN, f"{image.registry} does not accept this login.", "Enter it again, or another."
        )
    if reply.status == 403 and with_login:
        return SourceCheck(
            SourceCode.GATED, f"This login may not pull {image.name}.", "Ask its owner, or choose another credential."
        )
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.GATED,
            f"{image.name} is not public, or does not exist.",
            "Choose a credential with a login of the registry.",
        )
    return SourceCheck(SourceCode.UNREACHABLE, f"{image.registry} could not be asked ({reply.said}).", LATER)
