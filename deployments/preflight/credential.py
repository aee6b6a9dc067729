"""Rules about the credential that a wish names, and about models that need one."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deployments.findings import Finding, error, warning
from deployments.preflight.rules import Case, Rules
from deployments.sources import RESOLVED, Scheme
from deployments.sources.oci import is_same_registry, parse_image
from portal.lib.hosts import why_not_public

rules = Rules()

POINTER = "/spec/source/credential"
# What opens a source, by its scheme: the kind of credential, and how people call it.
OPENS = {
    Scheme.HF: ("hf", "a Hugging Face token"),
    Scheme.S3: ("s3", "S3 keys"),
    Scheme.GS: ("gs", "a Google service account"),
    Scheme.OCI: ("registry", "a registry login"),
}


@rules.rule
def credential_exists(case: Case) -> Iterator[Finding]:
    """The credential must be one of the team's."""
    name = case.spec.source.credential
    if name and name not in case.facts.credentials:
        yield error(
            "credential_unknown",
            POINTER,
            f"The team {case.team} has no credential called “{name}”.",
            "Add it under credentials, or choose another.",
        )


@rules.rule
def credential_is_stored(case: Case) -> Iterator[Finding]:
    """A value that never reached the cluster opens nothing; one that is on its way will."""
    name = case.spec.source.credential
    known = case.facts.credentials.get(name or "")
    if known is None or known.stored or known.waiting:
        return
    yield error(
        "credential_not_stored",
        POINTER,
        f"The value of the credential “{name}” was not stored.",
        "Enter it again under credentials, or choose another.",
    )


@rules.rule
def credential_is_accepted(case: Case) -> Iterator[Finding]:
    """What its server refused when it was tested downloads nothing."""
    name = case.spec.source.credential
    known = case.facts.credentials.get(name or "")
    if known is not None and known.refused:
        yield error(
            "credential_refused",
            POINTER,
            f"The value of the credential “{name}” was not accepted when it was tested last.",
            "Enter another under credentials, or choose another credential.",
        )


@rules.rule
def credential_fits_the_source(case: Case) -> Iterator[Finding]:
    """A token of a hub opens no bucket: KServe would look at the wrong keys and ask without any."""
    name = case.spec.source.credential
    known = case.facts.credentials.get(name or "")
    if known is None:
        return
    source = case.loads
    if source is None or source.scheme in RESOLVED:
        return  # said elsewhere
    scheme = source.scheme
    wanted = OPENS.get(scheme)
    if wanted is None:
        yield error(
            "credential_of_no_use",
            POINTER,
            f"A source of {scheme.value}: is loaded without a credential.",
            "Leave it out.",
        )
    elif known.kind and known.kind != wanted[0]:
        yield error(
            "credential_kind",
            POINTER,
            f"“{name}” does not open {scheme.value}:// sources; that takes {wanted[1]}.",
            "Choose another, or add one.",
        )


@rules.rule
def login_is_of_the_registry(case: Case) -> Iterator[Finding]:
    """Nodes look a login up by host and port of the image: that of another registry is not used, and the pull fails."""
    name, source = case.spec.source.credential, case.loads
    known = case.facts.credentials.get(name or "")
    if known is None or not known.server or source is None or source.scheme is not Scheme.OCI:
        return
    registry = parse_image(source.uri).registry
    if not is_same_registry(known.server, registry):
        yield error(
            "credential_elsewhere",
            POINTER,
            f"“{name}” is for {known.server}, and the image lies in {registry}.",
            "Choose the login of that registry, port included, or add one.",
        )


@rules.rule
def store_is_public(case: Case) -> Iterator[Finding]:
    """Keys are taken to servers that may be public, or that an operator configured; older ones name others."""
    name = case.spec.source.credential
    known = case.facts.credentials.get(name or "")
    if known is None or not known.endpoint or known.endpoint in case.facts.origins:
        return
    if why := why_not_public(urlsplit(known.endpoint).hostname or "") or known.inside:
        yield error(
            "credential_inside",
            POINTER,
            f"“{name}” is for {known.endpoint}. {why}",
            "Enter it again with a public endpoint, or have an admin add the server to OBJECT_STORES.",
        )


@rules.rule
def gated_and_not_asked(case: Case) -> Iterator[Finding]:
    """Slipway cannot read a stored token, so it only knows of models that were tested when it was entered."""
    name = case.spec.source.credential
    known, model = case.facts.credentials.get(name or ""), case.model
    if known is not None and not known.asked and known.kind != "hf" and case.loads is not None:
        yield warning(
            "source_not_asked",
            POINTER,
            f"Whether “{name}” opens {case.loads.uri} shows when it is downloaded, and so does what lies there.",
            "To know before: enter its value again and have it tested with this address.",
        )
    if known is None or known.asked or known.kind != "hf" or model is None or not model.gated:
        return
    yield warning(
        "gated_not_asked",
        POINTER,
        f"{model.id} is gated. Whether “{name}” opens it shows when it is downloaded.",
        "To know before: enter the token again and have it tested with this model.",
    )
