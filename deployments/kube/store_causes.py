"""What stands in the way of a download from a bucket or a web server, in the words of KServe's storage initializer."""

from __future__ import annotations

import re

from deployments.kube.log_patterns import Patterns, failed
from deployments.kube.reasons import Code, Reason

patterns = Patterns()


@patterns.on(
    r"(?:S3|GCS|HTTP) authentication failed|Invalid AWS credentials|S3 error \[(?:400|401|403|InvalidAccessKeyId)\]"
    r"|Access denied to (?:S3|GCS) resource|HTTP access denied for"
)
def _access(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_ACCESS,
        "The server of the weights refused the download: it needs a credential, or does not accept this one.",
        "Choose a credential of the team that opens it, or enter its value again.",
        field="credential",
    )


@patterns.on(
    r"(?:S3|GCS) resource '[^'\n]{0,200}' not found|S3 bucket '[^'\n]{0,200}' does not exist"
    r"|Failed to fetch model\. No model found in|HTTP resource not found at"
)
def _not_found(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_NOT_FOUND,
        "Nothing was found at the address of the weights.",
        "Check bucket, folder and file.",
        field="source_uri",
    )


@patterns.on(r"Could not connect to the endpoint URL|Failed to connect to (?:S3|GCS|HTTP) endpoint")
def _unreachable(match: re.Match[str]) -> Reason:
    return failed(
        Code.HUB_UNREACHABLE,
        "The server of the weights could not be reached from the cluster.",
        "It is tried again. If it stays so, an admin has to look at the way from the cluster to that server.",
    )


@patterns.on(r"Failed to unpack archive file|did not respond with (?:any of following )?'Content-Type'")
def _form(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        "What was downloaded is not what its name says: no archive, or a file of the wrong type.",
        "Have the server send an archive or a GGUF file under its own type, or put the model into a bucket.",
        field="source_uri",
    )
