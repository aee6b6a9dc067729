"""Asks the server that a credential opens whether it accepts it: in a worker, with the value in hand, for moments.

Answers are typed: *found*, *gated*, *not found*, *bad token*, *unreachable*. All calls go through the one outbound
door; no message quotes the value or what a server made of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from deployments.models import Credential
from deployments.services.credential_values import GOOGLE_TOKEN_URI
from deployments.services.model_checks import HUB_HOSTS
from deployments.services.sealing import Opened
from deployments.sources import Reply, SourceCheck, SourceCode, huggingface, parse
from portal.lib import outbound

# Three calls at most: all of them end well within a lease.
SECONDS = 4.0
ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,60}")
S3_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
CHALLENGE = re.compile(r'(realm|service)="([^"]{1,300})"')
AGAIN = "Enter it again, or another."
LATER = "It is stored all the same; the first download shows whether it opens."


@sensitive_variables()
def try_out(kind: str, opened: Opened, test_uri: str = "") -> SourceCheck:
    """Ask the server that this value is for. Takes some seconds at most, and never raises for what a server does."""
    try:
        return _TRIALS[Credential.Kind(kind)](opened, test_uri)
    except outbound.OutboundError as error:
        return SourceCheck(SourceCode.UNREACHABLE, f"It could not be tested: {error.message}", LATER)


def _hub(opened: Opened, test_uri: str) -> SourceCheck:
    token = opened.value["token"]
    who = _hub_get("/api/whoami-v2", token)
    if who.status in {401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, "The hub does not accept this token.", AGAIN)
    if who.status != 200:
        said = f"status {who.status}" if who.status else (who.error or "no answer")
        return SourceCheck(SourceCode.UNREACHABLE, f"The hub could not be asked ({said[:120]}).", LATER)
    if test_uri:
        source = parse(test_uri)
        found = huggingface.check(source.id, source.revision, lambda path: _hub_get(path, token), with_token=True)
        if found.found:
            return replace(found, message=f"The hub accepts this token, and it opens {source.id}.")
        return found
    name = who.json.get("name") if isinstance(who.json, Mapping) else None
    # Whatever a hub says of itself ends on pages: a plain name or nothing.
    account = f", as {name}" if isinstance(name, str) and ACCOUNT.fullmatch(name) else ""
    return SourceCheck(SourceCode.FOUND, f"The hub accepts this token{account}.")


def _hub_get(path: str, token: str) -> Reply:
    try:
        status, body = outbound.get_json(
            f"{settings.HUB_URL.rstrip('/')}{path}",
            operator_origins=[settings.HUB_URL],
            redirect_hosts=HUB_HOSTS,
            headers={"Authorization": f"Bearer {token}"},
            seconds=SECONDS,
        )
    except outbound.OutboundError as error:
        return Reply(0, error=error.message)
    return Reply(status, body)


def _s3(opened: Opened, test_uri: str) -> SourceCheck:
    region = opened.settings.get("region") or "us-east-1"
    endpoint = opened.settings.get("endpoint") or f"https://s3.{region}.amazonaws.com"
    headers = signed_s3_headers(endpoint, region, opened.value, datetime.now(UTC))
    answer = outbound.request(
        "GET", f"{endpoint}/", operator_origins=settings.OBJECT_STORES, headers=headers, seconds=SECONDS
    )
    found = S3_CODE.search(answer.body)
    code = found.group(1).decode() if found else ""
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


def signed_s3_headers(endpoint: str, region: str, value: Mapping[str, str], now: datetime) -> dict[str, str]:
    """The headers of a GET for the list of buckets, signed as AWS Signature Version 4 says."""
    host, day, moment = urlsplit(endpoint).netloc, now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    canonical = f"GET\n/\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{moment}\n\n{names}\n{empty}"
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + value["secret_access_key"].encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    who = f"Credential={value['access_key_id']}/{scope}"
    return {
        "Authorization": f"AWS4-HMAC-SHA256 {who},SignedHeaders={names},Signature={signature}",
        "x-amz-content-sha256": empty,
        "x-amz-date": moment,
    }


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
        return SourceCheck(SourceCode.FOUND, "Google accepts this key.")
    if answer.status in {400, 401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, "Google does not accept this key.", AGAIN)
    return SourceCheck(SourceCode.UNREACHABLE, f"Google answered {answer.status}.", LATER)


def _registry(opened: Opened, test_uri: str) -> SourceCheck:
    pair = f"{opened.value['username']}:{opened.value['password']}"
    login = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    server = opened.settings["server"]
    answer = outbound.request("GET", f"https://{server}/v2/", headers=login, seconds=SECONDS)
    challenge = answer.headers.get("www-authenticate", "")
    if answer.status == 401 and challenge.lower().startswith("bearer"):
        # The registry names who gives out its tokens: the login goes there, as every client of it does.
        said = dict(CHALLENGE.findall(challenge))
        query = urlencode({"service": said.get("service", ""), "account": opened.value["username"]}, quote_via=quote)
        answer = outbound.request("GET", f"{said.get('realm', '')}?{query}", headers=login, seconds=SECONDS)
    if answer.status == 200:
        return SourceCheck(SourceCode.FOUND, f"{server} accepts this login.")
    if answer.status in {401, 403}:
        return SourceCheck(SourceCode.BAD_TOKEN, f"{server} does not accept this login.", AGAIN)
    return SourceCheck(SourceCode.UNREACHABLE, f"{server} answered {answer.status}.", LATER)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_TRIALS = {
    Credential.Kind.HF: _hub,
    Credential.Kind.S3: _s3,
    Credential.Kind.GS: _google,
    Credential.Kind.REGISTRY: _registry,
}
