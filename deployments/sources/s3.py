"""Buckets of S3 servers: what lies under an address, asked as AWS Signature Version 4 says. Pure; whoever calls brings
the HTTP and, where the bucket is not public, the keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import unescape
from urllib.parse import quote

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode
from deployments.sources.listing import Place, judge, too_many, under

AMAZON = "https://s3.{region}.amazonaws.com"
REGION = "us-east-1"
LATER = "You can go on: it is looked up again before anything starts."
_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
_OTHER_REGION = re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")
_OBJECT = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>([^<]{1,4096})</Key>")
_SIZE = re.compile(rb"<Size>(\d{1,18})</Size>")
_CUT = re.compile(rb"<IsTruncated>\s*true", re.IGNORECASE)
# What a server says of keys that it does not know or cannot verify.
BAD_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})


@dataclass(frozen=True, repr=False)
class Access:
    """How a server is asked: where it is, and with which keys; without keys as anybody."""

    endpoint: str = ""
    region: str = ""
    key_id: str = ""
    secret: str = ""

    @property
    def url(self) -> str:
        """The server's address, Amazon's own where none is named."""
        return self.endpoint or AMAZON.format(region=self.region or REGION)


NOBODY = Access()


def check(bucket: str, path: str, ask: Ask, access: Access) -> SourceCheck:
    """Look up a folder, or a single file, of a bucket and say what lies there, or why it cannot be used."""
    shown = f"s3://{bucket}/{path}".rstrip("/")
    wanted = path.strip("/")
    reply = _list(bucket, wanted, ask, access)
    region = _elsewhere(reply)
    if region and not access.endpoint and region != access.region:
        access = replace(access, region=region)
        reply = _list(bucket, wanted, ask, access)
    if reply.status != 200:
        return _refused(shown, bucket, reply, access)
    if _CUT.search(reply.body):
        return too_many(shown)
    found = under(wanted, _objects(reply.body))
    # Without the last slash of a folder the loader would take “chat-2/…” for a part of “chat”.
    uri = f"s3://{bucket}/{wanted}" + ("/" if wanted and not found.single else "")
    if not found.sizes:
        return SourceCheck(SourceCode.NOT_FOUND, f"Nothing lies under {shown}.", "Check bucket and folder.")

    def read(name: str, first: int | None) -> Reply:
        return _get(f"{access.url}/{bucket}/{quote(found.key(name))}", "", ask, access, first)

    return judge(Place(uri, read, found.single), found.sizes)


def signed_headers(url: str, access: Access) -> dict[str, str]:
    """The headers of a GET, signed as AWS Signature Version 4 says; none without keys.

    Path and query of `url` must be quoted already. Nothing is sent: that is the outbound door's.
    """
    if not access.key_id:
        return {}
    # Only where there are keys, in a worker: to import this takes longer than an answer of the request form may.
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import ReadOnlyCredentials

    request = AWSRequest("GET", url)
    keys = ReadOnlyCredentials(access.key_id, access.secret, None)
    S3SigV4Auth(keys, "s3", access.region or REGION).add_auth(request)
    return dict(request.headers.items())


def code_of(body: bytes) -> str:
    """The code of an error answer, as “AccessDenied”; empty where it names none."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def _list(bucket: str, prefix: str, ask: Ask, access: Access) -> Reply:
    query = f"list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}"
    return _get(f"{access.url}/{bucket}", query, ask, access, None)


def _get(url: str, query: str, ask: Ask, access: Access, first: int | None) -> Reply:
    whole = f"{url}?{query}" if query else url
    headers: Mapping[str, str] = signed_headers(whole, access)
    return ask(whole, headers={**headers, **({"Range": f"bytes=0-{first - 1}"} if first else {})})


def _objects(body: bytes) -> dict[str, int]:
    """Keys and sizes in bytes of a listing; whatever else is in it is passed over."""
    found: dict[str, int] = {}
    for match in _OBJECT.finditer(body):
        key, size = _KEY.search(match[1]), _SIZE.search(match[1])
        if key and size:
            found[unescape(key[1].decode(errors="replace"))] = int(size[1])
    return found


def _elsewhere(reply: Reply) -> str:
    """The region that a server sends its callers to; empty when it is the right one."""
    if reply.status not in {301, 307, 400}:
        return ""
    found = _OTHER_REGION.search(reply.body)
    named = reply.headers.get("x-amz-bucket-region", "")
    return named if re.fullmatch(r"[a-z0-9-]{1,40}", named) else (found[1].decode() if found else "")


def _refused(shown: str, bucket: str, reply: Reply, access: Access) -> SourceCheck:
    code = code_of(reply.body)
    if reply.status == 404:
        return SourceCheck(SourceCode.NOT_FOUND, f"There is no bucket “{bucket}”.", "Check its name and the endpoint.")
    if reply.status in {400, 401, 403} and code in BAD_KEYS:
        return SourceCheck(
            SourceCode.BAD_TOKEN, f"The S3 server does not accept these keys ({code}).", "Enter them again, or others."
        )
    if reply.status in {401, 403} and access.key_id:
        return SourceCheck(
            SourceCode.GATED,
            f"The S3 server knows these keys, but they may not list {shown}.",
            "They need s3:ListBucket and s3:GetObject there.",
        )
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.GATED, f"The bucket “{bucket}” is not public.", "Choose a credential with S3 keys that open it."
        )
    if _elsewhere(reply):
        return SourceCheck(SourceCode.UNUSABLE, "The bucket is in another region.", "Enter the keys with that region.")
    return SourceCheck(SourceCode.UNREACHABLE, f"The S3 server could not be asked ({reply.said}).", LATER)
