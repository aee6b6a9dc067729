"""Asks the server that a credential opens whether it accepts it: in a worker, with the value in hand, for moments.

With the address of a model it is asked for that model too, by the code that looks up models for everybody
(`source_checks`). Answers are typed: *found*, *gated*, *not found*, *bad token*, *unreachable*. All calls go through
the one outbound door; no message quotes the value or what a server made of it.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from deployments.models import Credential
from deployments.services import source_checks
from deployments.services.credential_values import GOOGLE_TOKEN_URI
from deployments.services.sealing import Opened
from deployments.services.source_checks import Keys
from deployments.sources import Reply, SourceCheck, SourceCode, adapters, distribution, huggingface, parse, s3
from deployments.sources.oci import is_same_registry, parse_image
from portal.lib import outbound

# A few calls at most: all of them end well within a lease. Of several addresses the last are not asked in time.
SECONDS, ADDRESS_SECONDS = 4.0, 14.0
ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,60}")
CHALLENGE = re.compile(r'(realm|service)="([^"]{1,300})"')
AGAIN = "Enter it again, or another."
PUBLIC = "Enter them with a public endpoint, or have an admin add the server to OBJECT_STORES."
LATER = "It is stored all the same; the first download shows whether it opens."
TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@sensitive_variables()
def try_out(kind: str, opened: Opened, test_uri: str = "") -> SourceCheck:
    """Ask the server that this value is for. Takes some seconds at most, and never raises for what a server does."""
    try:
        return _TRIALS[Credential.Kind(kind)](opened, test_uri)
    except outbound.OutboundError as error:
        return SourceCheck(SourceCode.UNREACHABLE, f"It could not be tested: {error.message}", LATER)


@sensitive_variables()
def _of_model(accepted: SourceCheck, test_uri: str, keys: Keys, what: str) -> SourceCheck:
    """The answer about the model that the value is tested with; `accepted` stands where none was named."""
    if not test_uri or not accepted.found:
        return accepted
    source = parse(test_uri)
    found = source_checks.check(source, keys=keys)
    if found is None:
        return accepted
    return replace(found, message=f"{accepted.message.rstrip('.')}, and {what} {source.id}.") if found.found else found


@sensitive_variables()
def _hub(opened: Opened, test_uri: str) -> SourceCheck:
    token = opened.value["token"]
    until = time.monotonic() + ADDRESS_SECONDS
    who = _hub_get("/api/whoami-v2", token)
    if who.status in {401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, "The hub does not accept this token.", AGAIN)
    if who.status != 200:
        said = f"status {who.status}" if who.status else (who.error or "no answer")
        return SourceCheck(SourceCode.UNREACHABLE, f"The hub could not be asked ({said[:120]}).", LATER)
    if test_uri:

        @cache
        def get(path: str) -> Reply:
            in_time = time.monotonic() < until
            return _hub_get(path, token) if in_time else Reply(0, error="the hub was too slow")

        return _of_addresses(test_uri.split(), get)
    name = who.json.get("name") if isinstance(who.json, Mapping) else None
    # Whatever a hub says of itself ends on pages: a plain name or nothing.
    account = f", as {name}" if isinstance(name, str) and ACCOUNT.fullmatch(name) else ""
    return SourceCheck(SourceCode.FOUND, f"The hub accepts this token{account}.")


@sensitive_variables()
def _of_addresses(uris: Sequence[str], get: huggingface.Get) -> SourceCheck:
    """What a token makes of a model and of LoRA adapters.

    The first address is that of the model, unless its files tell that it is an adapter too: of what the token may not
    see nothing tells which of both it is.
    """
    model: SourceCheck | None = None
    tested: list[adapters.AdapterFacts] = []
    opens: list[str] = []
    for source in map(parse, uris):
        if model is not None or adapters.is_adapter(source.id, source.revision, get):
            facts = adapters.check_adapter(source.id, source.revision, get, with_token=True)
            tested.append(facts)
            opens += [source.id] if facts.found else []
        else:
            model = huggingface.check(source.id, source.revision, get, with_token=True)
            opens += [source.id] if model.found else []
    refused = [facts for facts in tested if not facts.found]
    # Rules about the model go by its own answer; of adapters each has one of its own.
    first = next(iter(refused), None)
    code = SourceCode(first.code) if first is not None else SourceCode.FOUND
    found = model or SourceCheck(code, "", first.remedy if first is not None else "")
    said = [*([found.message] if model is not None and not model.found else []), *(facts.message for facts in refused)]
    if opens:
        said.insert(0, f"The hub accepts this token, and it opens {_listed(opens)}.")
    return replace(found, message=" ".join(said), adapters=tuple(facts.as_json() for facts in tested))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _hub_get(path: str, token: str) -> Reply:
    return source_checks.hub_get(token)(path)


@sensitive_variables()
def _s3(opened: Opened, test_uri: str) -> SourceCheck:
    access = s3.Access(
        endpoint=opened.settings.get("endpoint", ""),
        region=opened.settings.get("region", ""),
        key_id=opened.value["access_key_id"],
        secret=opened.value["secret_access_key"],
    )
    headers = s3.signed_headers(f"{access.url}/", access)
    try:
        answer = outbound.request(
            "GET", f"{access.url}/", operator_origins=settings.OBJECT_STORES, headers=headers, seconds=SECONDS
        )
    except outbound.OutboundError as error:
        if error.code != "forbidden":
            raise
        # KServe's loader would ask no door, and take the keys there.
        return SourceCheck(SourceCode.BAD_TOKEN, f"These keys are taken nowhere: {error.message}", PUBLIC)
    return _of_model(_buckets(answer), test_uri, Keys(s3=access), "they open")


def _buckets(answer: outbound.Answer) -> SourceCheck:
    """What a server made of the question for its buckets."""
    code = s3.code_of(answer.body)
    if answer.status == 200:
        return SourceCheck(SourceCode.FOUND, "The S3 server accepts these keys.")
    if answer.status == 403 and code == "AccessDenied":
        return SourceCheck(
            SourceCode.FOUND, "The S3 server accepts these keys; listing its buckets is not allowed to them."
        )
    if answer.status in {401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, f"The S3 server does not accept these keys ({code or '403'}).", AGAIN)
    if code == "AuthorizationHeaderMalformed":
        return SourceCheck(SourceCode.BAD_TOKEN, "The S3 server is in another region.", "Enter the right region.")
    return SourceCheck(SourceCode.UNREACHABLE, f"The S3 server answered {answer.status} {code}".strip() + ".", LATER)


@sensitive_variables()
def _google(opened: Opened, test_uri: str) -> SourceCheck:
    try:
        key: Any = orjson.loads(opened.value["service_account"])
        private = serialization.load_pem_private_key(key["private_key"].encode(), password=None)
    except (ValueError, TypeError, KeyError):
        private = None
    if not isinstance(private, RSAPrivateKey):
        return SourceCheck(SourceCode.BAD_TOKEN, "The private key in it cannot be read.", "Paste the whole key file.")
    now = int(time.time())
    claims = {
        "iss": key["client_email"],
        "scope": "https://www.googleapis.com/auth/devstorage.read_only",
        "aud": GOOGLE_TOKEN_URI,
        "iat": now,
        "exp": now + 300,
    }
    head = _base64url(orjson.dumps({"alg": "RS256", "typ": "JWT"})) + "." + _base64url(orjson.dumps(claims))
    assertion = head + "." + _base64url(private.sign(head.encode(), PKCS1v15(), hashes.SHA256()))
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = outbound.request("POST", GOOGLE_TOKEN_URI, form=form, seconds=SECONDS)
    if answer.status == 200:
        accepted = SourceCheck(SourceCode.FOUND, "Google accepts this key.")
        given = answer.json() if test_uri else {}
        token = str(given.get("access_token") or "") if isinstance(given, Mapping) else ""
        if test_uri and not TOKEN.fullmatch(token):
            return SourceCheck(SourceCode.UNREACHABLE, "Google accepts this key and gave no token for it.", LATER)
        return _of_model(accepted, test_uri, Keys(token=token), "it opens")
    if answer.status in {400, 401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, "Google does not accept this key.", AGAIN)
    return SourceCheck(SourceCode.UNREACHABLE, f"Google answered {answer.status}.", LATER)


@sensitive_variables()
def _registry(opened: Opened, test_uri: str) -> SourceCheck:
    pair = f"{opened.value['username']}:{opened.value['password']}"
    header = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    server = opened.settings["server"]
    # As images are looked up there: at the address that an operator gave it, else at its name.
    base = source_checks.registries().get(server, "")
    url = f"{base or distribution.server_of(server)}/v2/"
    answer = outbound.request("GET", url, operator_origins=[base] if base else (), headers=header, seconds=SECONDS)
    challenge = answer.headers.get("www-authenticate", "")
    if answer.status == 401 and challenge.lower().startswith("bearer"):
        # The registry names who gives out its tokens: the login goes there, as every client of it does.
        said = dict(CHALLENGE.findall(challenge))
        query = urlencode({"service": said.get("service", ""), "account": opened.value["username"]}, quote_via=quote)
        url = f"{said.get('realm', '')}?{query}"
        answer = outbound.request("GET", url, operator_origins=[base] if base else (), headers=header, seconds=SECONDS)
    if answer.status == 200:
        accepted = SourceCheck(SourceCode.FOUND, f"{server} accepts this login.")
        if test_uri and not is_same_registry(parse_image(test_uri).registry, server):
            # It is shown to nobody but the server that it was entered for.
            return replace(accepted, message=f"{accepted.message} The model is in another registry.")
        login = (opened.value["username"], opened.value["password"])
        return _of_model(accepted, test_uri, Keys(login=login), "it opens")
    if answer.status in {401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, f"{server} does not accept this login.", AGAIN)
    return SourceCheck(SourceCode.UNREACHABLE, f"{server} answered {answer.status}.", LATER)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_TRIALS: Mapping[Credential.Kind, Callable[[Opened, str], SourceCheck]] = {
    Credential.Kind.HF: _hub,
    Credential.Kind.S3: _s3,
    Credential.Kind.GS: _google,
    Credential.Kind.REGISTRY: _registry,
}
