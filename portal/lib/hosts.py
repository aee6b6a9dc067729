"""Which hosts can be on the open Internet, told from how they are written: no name is resolved here. Pure."""

from __future__ import annotations

import ipaddress
import re

_DOTTED = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# Ends of names that the Internet has none of: kept for other uses by RFC 6761, 6762, 7686, 8375 and 9476, set aside by
# ICANN, or used by so many networks of their own that RFC 6762 warns of them. “svc” and “default” a pod's resolver
# completes to names of its cluster. (“example” leads nowhere, and so to nobody's inside.)
PRIVATE_ENDS = frozenset(
    {
        *("localhost", "localdomain", "local", "internal", "home.arpa", "test", "invalid", "onion", "alt"),
        *("intranet", "private", "corp", "home", "lan", "mail"),
        *("svc", "default"),
    }
)
# The Internet's own last labels: letters alone, or letters of other scripts as “xn--…”.
_LAST = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{1,59}")


def is_public(address: str) -> bool:
    """True for an address of the open Internet: not private, loopback, link-local, shared, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes is judged by what it really reaches.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def why_not_public(host: str) -> str:
    """Why nothing public can be at a host, in words for people; empty where something may be. Without its port.

    Numbers are taken in their usual spelling alone: programs do not agree on what “010.8.8.8” or “2130706433” are.
    """
    name = host.lower().rstrip(".")
    bare = name.removeprefix("[").removesuffix("]").split("%", 1)[0]
    if ":" in bare or _DOTTED.fullmatch(bare):
        try:
            open_to_all = is_public(bare)
        except ValueError:
            return f"“{host[:70]}” is no address."
        return "" if open_to_all else f"{bare} is not a public address."
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return f"“{host[:70]}” is no address: one is written as four numbers from 0 to 255, without zeros in front."
    if len(labels) < 2:
        return f"“{host[:70]}” is a name without a domain: only networks of their own know such names."
    ends = {labels[-1], ".".join(labels[-2:])}
    if found := ends & PRIVATE_ENDS:
        return f"Names that end in “.{max(found, key=len)}” are never public."
    if not _LAST.fullmatch(labels[-1]):
        return f"Names that end in “.{labels[-1][:63]}” are never public."
    return ""
