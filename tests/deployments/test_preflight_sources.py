"""What preflight says of where weights come from: which strategy loads what, credentials, formats, versions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import ModelFacts
from deployments.findings import Finding
from deployments.preflight import CredentialFacts, check
from deployments.sources import SourceCheck, SourceCode
from deployments.spec import DeploymentSpec
from tests.deployments.wishes import LLAMA, facts_of, roles_json, spec_json

URIS = {
    "hf": "hf://meta-llama/Llama-3.1-8B-Instruct",
    "s3": "s3://bucket/llama",
    "gs": "gs://bucket/llama",
    "pvc": "pvc://claim/llama",
    "oci": "oci://registry.example.com/llama@sha256:" + "c" * 64,
    "https": "https://files.example.com/llama.tar.gz",
    "models": "models:/llama@production",
    "model-registry": "model-registry://llama/v1",
}
# Of each strategy: what it loads, and what is proposed for the others.
TABLE = {
    "standard": {"oci": "oci-volume"},
    "disaggregated": {"gs": "standard", "https": "standard"},
    "oci-volume": {"hf": "standard", "s3": "standard", "gs": "standard", "pvc": "standard", "https": "standard"},
}
PLACES = ("hf", "s3", "gs", "pvc", "oci", "https")


def found(
    uri: str,
    strategy: str = "standard",
    *,
    model: ModelFacts | None = LLAMA,
    asked: SourceCheck | None = None,
    known: CredentialFacts | None = None,
    **source: Any,
) -> dict[str, Finding]:
    """What preflight says of a wish for this source, by code."""
    build = roles_json if strategy == "disaggregated" else spec_json
    credential = {"credential": "store"} if known else {}
    spec = DeploymentSpec.from_json(build(strategy=strategy, source={"uri": uri, **credential, **source}))
    facts = facts_of(model=model, source_check=asked, credentials={"store": known} if known else {})
    return {finding.code: finding for finding in check(spec, "chat", "search", facts)}


@pytest.mark.parametrize("scheme", PLACES)
@pytest.mark.parametrize("strategy", TABLE)
def test_a_pair_that_cannot_work_is_refused_with_the_nearest_that_does(strategy: str, scheme: str):
    said = found(URIS[scheme], strategy).get("source_strategy")
    nearest = TABLE[strategy].get(scheme)
    assert (said is None) == (nearest is None)
    if said is not None:
        assert (said.field, said.value, said.is_error) == ("strategy", nearest, True)


@pytest.mark.parametrize("entry", ["models", "model-registry"])
@pytest.mark.parametrize("strategy", TABLE)
@pytest.mark.parametrize("scheme", PLACES)
def test_an_entry_of_a_registry_counts_as_what_it_stands_for(entry: str, strategy: str, scheme: str):
    stands_for = SourceCheck(SourceCode.FOUND, "", loads=URIS[scheme])
    said = found(URIS[entry], strategy, asked=stands_for)
    assert ("source_strategy" in said) == (scheme in TABLE[strategy])


@pytest.mark.parametrize("scheme", ["s3", "gs", "pvc", "https"])
def test_a_place_has_no_versions_and_nothing_pins_it(scheme: str):
    said = found(URIS[scheme], revision="main")
    assert (said["revision_of_a_place"].field, said["revision_of_a_place"].is_error) == ("source_revision", True)
    assert said["source_may_change"].severity == "info"
    assert not {"revision_of_a_place", "source_may_change"} & found(URIS["hf"], revision="main").keys()


@pytest.mark.parametrize(
    ("scheme", "kind", "code"),
    [
        ("s3", "s3", ""),
        ("s3", "hf", "credential_kind"),
        ("gs", "gs", ""),
        ("gs", "s3", "credential_kind"),
        ("pvc", "s3", "credential_of_no_use"),
        ("https", "hf", "credential_of_no_use"),
    ],
)
def test_a_credential_must_open_the_source(scheme: str, kind: str, code: str):
    said = found(URIS[scheme], known=CredentialFacts(kind=kind, asked=True))
    assert {"credential_kind", "credential_of_no_use"} & said.keys() == ({code} if code else set())


def test_of_an_entry_the_credential_must_open_the_artifact():
    stands_for = SourceCheck(SourceCode.FOUND, "", loads=URIS["s3"])
    assert "credential_kind" in found(URIS["models"], asked=stands_for, known=CredentialFacts(kind="gs", asked=True))
    assert "credential_kind" not in found(
        URIS["models"], asked=stands_for, known=CredentialFacts(kind="s3", asked=True)
    )


def test_a_bucket_that_nobody_looked_into_says_so_and_may_be_asked_for():
    said = found(URIS["s3"], model=None, known=CredentialFacts(kind="s3"))
    assert said["source_not_asked"].field == "credential"
    assert not any(finding.is_error for finding in said.values())
    assert "source_not_asked" not in found(URIS["s3"], known=CredentialFacts(kind="s3", asked=True))


def test_a_single_file_is_for_one_node():
    """Across nodes KServe's preset serves a folder: no name of a file is said to it, and no tokenizer."""
    gguf = dataclasses.replace(LLAMA, format="gguf", file="llama.gguf")
    two = {"nodes": 2, "args": {"max-model-len": 8192, "tensor-parallel-size": 4, "pipeline-parallel-size": 2}}

    def of(uri: str, model: ModelFacts | None, **changes: Any) -> dict[str, Finding]:
        spec = DeploymentSpec.from_json(spec_json(source={"uri": uri}, **(two | changes)))
        return {item.code: item for item in check(spec, "chat", "search", facts_of(model=model))}

    for uri, model in ((URIS["s3"], gguf), ("s3://bucket/m.gguf", None), ("pvc://claim/x/model.gguf", None)):
        said = of(uri, model)["file_and_nodes"]
        assert (said.field, said.value, said.is_error) == ("nodes", None, True), "8 GPUs are more than a node has"
    small = {"max-model-len": 8192, "pipeline-parallel-size": 2}
    assert of(URIS["s3"], gguf, args=small)["file_and_nodes"].value == 1
    assert "file_and_nodes" not in of(URIS["s3"], LLAMA)
    assert "file_and_nodes" not in of(URIS["s3"], gguf, nodes=1, args=small)


def test_each_format_says_what_it_means():
    gguf = dataclasses.replace(LLAMA, format="gguf", file="llama.gguf")
    assert "weights_gguf" in found(URIS["s3"], model=gguf)
    assert "weights_gguf" in found("pvc://weights/llama.gguf", model=None)
    assert found(URIS["s3"], "disaggregated", model=gguf)["file_and_strategy"].value == "standard"
    # Nobody could look into a claim: its file's name says what it is.
    assert found("pvc://weights/llama.gguf", "disaggregated", model=None)["file_and_strategy"].field == "strategy"
    assert "weights_pytorch" in found(URIS["s3"], model=dataclasses.replace(LLAMA, format="pytorch"))
    assert "source_archive" in found(URIS["https"])
    quiet = {"weights_gguf", "weights_pytorch", "source_archive", "file_and_strategy"}
    assert not quiet & found(URIS["s3"], model=dataclasses.replace(LLAMA, format="safetensors")).keys()


def test_an_image_of_a_registry_that_is_not_listed_says_so_where_it_has_no_proposal():
    facts = facts_of(model=None, registries=("ghcr.io/slipway-models",))
    spec = DeploymentSpec.from_json(spec_json(source={"uri": "ghcr.io/acme/chat:1"}, strategy="oci-volume"))
    (finding,) = (item for item in check(spec, "chat", "search", facts) if item.is_error)
    assert finding.value is None
    assert "that is not among the registries that images may come from. Push it to one of them" in finding.remedy
