"""What an address of a service says about where it leads."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def host_of(address: str) -> str:
    """The host of a plain http(s) URL, or nothing."""
    try:
        parts = urlsplit(address)
        odd = parts.username is not None or parts.query or parts.fragment or parts.port == 0
    except ValueError:
        return ""
    return "" if odd or parts.scheme not in ("http", "https") else (parts.hostname or "").lower()
