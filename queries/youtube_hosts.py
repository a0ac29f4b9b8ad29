"""Where Google's API key may go."""

from __future__ import annotations

import re
from collections.abc import Collection

from queries.errors import Misconfigured
from queries.hosts import host_of, is_loopback
from queries.youtube_errors import SERVICE

DEFAULT_ENDPOINT = "https://youtube.googleapis.com/"
"""The rootUrl of the discovery document. Always given: the SDK would else take one from the environment."""

_KNOWN_HOSTS = frozenset({"youtube.googleapis.com", "www.googleapis.com"})
_KEY = re.compile(r"[\x21-\x7e]+")


def check_key(api_key: str) -> None:
    if not _KEY.fullmatch(api_key):
        what = "The YouTube API key is missing or holds a blank or a sign that no key has."
        raise Misconfigured(what, service=SERVICE, fix="Check YOUTUBE_API_KEY.")


def check_endpoint(endpoint: str, allow_hosts: Collection[str]) -> str:
    """The address, with its closing slash, when the key may go there: https and Google's or allowed, or loopback."""
    address = endpoint.strip()
    name = host_of(address)
    if not name:
        what = "The address of the YouTube API is not a plain http(s) URL."
        raise Misconfigured(what, service=SERVICE, fix="Check YOUTUBE_API_ENDPOINT.")
    if not is_loopback(name):
        if name not in _KNOWN_HOSTS and name not in {each.lower() for each in allow_hosts}:
            what = f"The YouTube API key is not sent to {name}: it is not a host of YouTube's API."
            raise Misconfigured(what, service=SERVICE, fix=f"Add --allow-host {name}.")
        if not address.startswith("https:"):
            what = f"The YouTube API key never travels over http, and {name} is asked for that way."
            raise Misconfigured(what, service=SERVICE, fix="Use https in YOUTUBE_API_ENDPOINT.")
    return address.rstrip("/") + "/"
