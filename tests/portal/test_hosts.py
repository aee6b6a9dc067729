"""Hosts that nothing public can be at, in every spelling that some program takes for an address inside."""

from __future__ import annotations

import pytest

from portal.lib.hosts import why_not_public

INSIDE = [
    *("10.0.0.1", "127.0.0.1", "127.1", "169.254.169.254", "192.168.0.9", "172.16.3.4", "100.64.0.1", "0.0.0.0", "0"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "10.0.0.1.", "127.0.0.1..", "192.0.2.7", "198.18.0.1"),
    # Numbers that resolvers, browsers or loaders read as one of these, or as a public one that others read otherwise.
    *("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "010.8.8.8", "10.1", "0xA9FEA9FE", "134744072", "1.2.3"),
    *("256.1.1.1", "999.999.999.999", "1.2.3.4.5", "example.com.7"),
    *("::1", "[::1]", "[::]", "[fe80::1%25eth0]", "[fc00::1]", "[fd12::3]", "[ff02::1]", "[fec0::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:a00:1]", "[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::a00:1]", "[::g]"),
    *("localhost", "LOCALHOST.", "a.localhost", "minio", "kubernetes", "minio.", ""),
    *("printer.local", "metadata.google.internal", "x.home.arpa", "a.test", "a.invalid", "x.onion", "a.lan", "a.corp"),
    *("kubernetes.default", "kubernetes.default.svc", "Kubernetes.Default.SVC.", "x.default.svc.cluster.local"),
    *("minio.kube-system", "store.search-x7k2q", "host.docker.internal", "a.b_c", "a.b2"),
]


@pytest.mark.parametrize("host", INSIDE)
def test_nothing_public_is_there(host: str):
    assert why_not_public(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "s3.eu-central-1.amazonaws.com", "93.184.216.34", "[2606:2800:220:1:248:1893:25c8:1946]",
     "EXAMPLE.com.", "local.example.com", "10.0.0.1.example.com", "xn--bcher-kva.xn--p1ai", "files.storage",
     "internal.dev", "127.0.0.1.nip.io", "8.8.8.8."],
)  # fmt: skip
def test_something_public_may_be_there(host: str):
    assert why_not_public(host) == ""


def test_a_reason_names_what_is_wrong():
    assert why_not_public("kubernetes.default.svc") == "Names that end in “.svc” are never public."
    assert why_not_public("x.home.arpa") == "Names that end in “.home.arpa” are never public."
    assert why_not_public("10.0.0.1") == "10.0.0.1 is not a public address."
    assert "without a domain" in why_not_public("minio")
    assert "four numbers" in why_not_public("2130706433")
