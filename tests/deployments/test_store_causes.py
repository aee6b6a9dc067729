"""What KServe's loader says when a bucket or a web server does not give the weights, as a typed reason."""

from __future__ import annotations

import pytest

from deployments.kube.log_causes import from_log


@pytest.mark.parametrize(
    ("line", "code", "field"),
    [
        ("RuntimeError: S3 authentication failed. Set AWS_ACCESS_KEY_ID", "model_access", "credential"),
        ("RuntimeError: S3 error [403]: Forbidden", "model_access", "credential"),
        ("RuntimeError: Invalid AWS credentials. Verify AWS_ACCESS_KEY_ID", "model_access", "credential"),
        ("RuntimeError: Access denied to GCS resource 'weights'. Verify permissions.", "model_access", "credential"),
        ("RuntimeError: HTTP access denied for 'https://f.example.com/m.tar'.", "model_access", "credential"),
        ("RuntimeError: S3 resource 'weights' not found.", "model_not_found", "source_uri"),
        ("RuntimeError: Failed to fetch model. No model found in models/chat/.", "model_not_found", "source_uri"),
        ("RuntimeError: HTTP resource not found at 'https://f.example.com/m.tar'.", "model_not_found", "source_uri"),
        ('EndpointConnectionError: Could not connect to the endpoint URL: "http://s"', "hub_unreachable", ""),
        ("RuntimeError: Failed to connect to HTTP endpoint 'files.example.com'.", "hub_unreachable", ""),
        ("RuntimeError: Failed to unpack archive file. The file format is not valid.", "model_files", "source_uri"),
        ("RuntimeError: URI: https://h/m.gguf did not respond with 'Content-Type': 'x'", "model_files", "source_uri"),
    ],
)
def test_each_complaint_of_the_loader_names_its_cause(line: str, code: str, field: str):
    reason = from_log(f"Traceback (most recent call last):\n  File x\n{line}\n")
    assert reason is not None
    assert (str(reason.code), reason.field) == (code, field)


def test_files_that_are_no_model_are_told_of_whatever_they_lie_in():
    reason = from_log("OSError: /mnt/models does not appear to have a file named config.json")
    assert reason is not None
    assert (str(reason.code), reason.field) == ("model_files", "source_uri")
    # A volume claim and an image are mounted: nothing is downloaded from them.
    assert "download" not in f"{reason.title} {reason.remedy}".lower()
    assert "volume claim" in reason.remedy
