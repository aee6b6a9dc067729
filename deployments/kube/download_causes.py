"""What stands in the way of a model's files: access, names, disks, the network, formats."""

from __future__ import annotations

import re

from deployments.kube.log_patterns import Patterns, failed
from deployments.kube.reasons import Code, Reason

patterns = Patterns()


@patterns.on(
    r"Invalid repository ID or local directory specified|does not appear to have a file named config\.json"
    r"|no safetensors or bin files"
)
def _no_config(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        "At the model’s address is no model that vLLM can read: config.json or the weights are missing.",
        "Name a repository or folder in the transformers layout with safetensors; in a volume claim, bucket or image "
        "look whether the files lie in the folder that is named.",
        field="source_uri",
    )


@patterns.on(r"Model architectures? \[?'?(?P<name>[\w]{1,80})[^\n]{0,80}(?:not supported|failed to be inspected)")
def _architecture(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        f"This vLLM cannot run models of the architecture {match['name']}.",
        "Choose another model, or a newer engine.",
        field="source_uri",
        numbers={"architecture": match["name"]},
    )


@patterns.on(r"has model type `(?P<name>[^`\n]{1,80})` but Transformers does not recognize")
def _model_type(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        f"This vLLM cannot read the configuration of models of the type {match['name']}.",
        "Choose another model, or a newer engine.",
        field="source_uri",
        numbers={"model_type": match["name"]},
    )


@patterns.on(r"Unrecognized model in [^\n]{1,200}Should have a `model_type` key")
def _no_model_type(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        "The model’s config.json does not say of which type it is.",
        "Choose another revision or repository, or have its owner put it right.",
        field="source_uri",
    )


@patterns.on(r"trust_remote_code=True|requires you to execute the (?:configuration|modeling) file")
def _remote_code(match: re.Match[str]) -> Reason:
    return failed(
        Code.REMOTE_CODE,
        "This model runs Python code of its own, which is switched off.",
        "Ask an admin for trust-remote-code, or choose a model that vLLM knows itself.",
        field="trust_remote_code",
        value=True,
    )


@patterns.on(r"getpwuid\(\): uid not found|uid not found: ?\d+")
def _no_user(match: re.Match[str]) -> Reason:
    return failed(
        Code.NO_USER_NAME,
        "The engine’s user has no name inside its image.",
        "An admin has to set USER and HOME in the engine profile.",
    )


@patterns.on(r"RepositoryNotFoundError")
def _no_repository(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_NOT_FOUND,
        "The hub has no model of this name, or it is private.",
        "Check owner and name; for a private model choose a credential with a token that may read it.",
        field="source_uri",
    )


@patterns.on(r"RevisionNotFoundError|Invalid rev id")
def _no_revision(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_NOT_FOUND,
        "The hub does not have this revision of the model.",
        "Check the revision, or leave it empty for the newest.",
        field="source_revision",
    )


@patterns.on(
    r"GatedRepoError|gated repo|401 Client Error|403 Client Error|Access to model [^\n]{0,200}is restricted"
    r"|Invalid username or password|Invalid user token"
)
def _access(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_ACCESS,
        "The hub refused the download: the model is gated or private, or the token is not valid.",
        "Accept the model’s licence on the hub, and choose a credential with a token of that account.",
        field="credential",
    )


@patterns.on(r"(?<!Local)EntryNotFoundError|404 Client Error|NoSuchBucket|NoSuchKey")
def _not_found(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_NOT_FOUND,
        "The model was not found where it was looked for.",
        "Check owner and name.",
        field="source_uri",
    )


@patterns.on(
    r"Cannot recognize storage type|StorageURI not supported|unsupported schema in model URI|invalid model URI"
)
def _scheme(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_SCHEME,
        "The cluster does not know this kind of model address.",
        "Write hf://owner/model.",
        field="source_uri",
    )


@patterns.on(r"No space left on device|ephemeral[- ]storage")
def _no_space(match: re.Match[str]) -> Reason:
    return failed(
        Code.DOWNLOAD_DISK,
        "The node’s disk is full: the model does not fit on it.",
        "Choose a smaller model, or have an admin free the node’s disk.",
    )


@patterns.on(
    r"LocalEntryNotFoundError|Cannot find an appropriate cached snapshot folder|Max retries exceeded with url"
    r"|Name or service not known|Temporary failure in name resolution|Connection(?: refused|Error| timed out)"
    r"|429 Client Error|50[234] Server Error"
)
def _hub(match: re.Match[str]) -> Reason:
    return failed(
        Code.HUB_UNREACHABLE,
        "The model hub could not be reached from the cluster.",
        "It is tried again. If it stays so, an admin has to look at the cluster’s way to the hub.",
    )
