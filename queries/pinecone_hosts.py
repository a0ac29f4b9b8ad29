"""Where Pinecone's key may go, and which names Pinecone has."""

from __future__ import annotations

import re
from collections.abc import Collection

from queries.errors import Misconfigured
from queries.hosts import host_of, is_loopback
from queries.pinecone_errors import SERVICE

CONTROLLER = "https://api.pinecone.io"

_KEY = re.compile(r"[\x21-\x7e]+")
_LEGACY_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
_INDEX_NAME = re.compile(r"[a-z0-9-]{1,45}")
_NAMESPACE_NAME = re.compile(r"[\x20-\x7e]{0,512}")


def check_names(index: str, namespace: str) -> None:
    if not _INDEX_NAME.fullmatch(index):
        what, fix = "The name of the index is not one that Pinecone has.", "Use 1 to 45 of a-z, 0-9 and hyphen."
        raise Misconfigured(what, service=SERVICE, fix=fix)
    if not _NAMESPACE_NAME.fullmatch(namespace):
        what, fix = "The namespace holds signs that Pinecone does not take.", "Use up to 512 printable ASCII signs."
        raise Misconfigured(what, service=SERVICE, fix=fix)


def check_key(api_key: str) -> None:
    if not _KEY.fullmatch(api_key):
        what = "The Pinecone API key is missing or holds a blank or a sign that no key has."
        raise Misconfigured(what, service=SERVICE, fix="Check PINECONE_API_KEY.")


def check_host(host: str, api_key: str, allow_hosts: Collection[str]) -> str:
    """The address when the key may go there: https and Pinecone's, or loopback, or a host allowed by name."""
    address = host.strip()
    if "://" not in address:
        address = f"{'http' if is_loopback(host_of(f'http://{address}')) else 'https'}://{address}"
    name = host_of(address)
    if not name:
        what = "The address of the Pinecone index is not a plain http(s) URL."
        raise Misconfigured(what, service=SERVICE, fix="Check PINECONE_INDEX_HOST.")
    if is_loopback(name):
        return address.rstrip("/")
    is_pinecone = name == "pinecone.io" or name.endswith(".pinecone.io")
    if not is_pinecone and name not in {each.lower() for each in allow_hosts}:
        what = f"The Pinecone API key is not sent to {name}: it is not a host of Pinecone's."
        raise Misconfigured(what, service=SERVICE, fix=f"Add --allow-host {name}.")
    is_cloud_key = api_key.startswith("pcsk_") or _LEGACY_KEY.fullmatch(api_key)
    if address.startswith("http:") and (is_pinecone or is_cloud_key):
        what = f"A cloud key never travels over http, and {name} is asked for that way."
        raise Misconfigured(what, service=SERVICE, fix="Use https, or a key of that server's own.")
    return address.rstrip("/")
