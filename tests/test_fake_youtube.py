"""The fake YouTube keeps to Google's own discovery document, and books as the service does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.request import urlopen

import pytest
from googleapiclient.discovery_cache import DISCOVERY_DOC_DIR

from tests.servers.fake_script import rule
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.fake_youtube_process import run_fake_youtube
from tests.servers.fake_youtube_script import REFUSALS


@cache
def discovery() -> dict[str, Any]:
    """The document inside the package; it is what a real client is made of."""
    with open(f"{DISCOVERY_DOC_DIR}/youtube.v3.json", encoding="utf-8") as file:
        return dict(json.load(file))


def complaints(value: Any, schema: Mapping[str, Any], at: str = "") -> list[str]:
    """Where a value is not what the discovery document says; fields it does not name are complaints too."""
    if "$ref" in schema:
        return complaints(value, discovery()["schemas"][schema["$ref"]], at)
    kind = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}[schema["type"]]
    if type(value) is not kind:
        return [f"{at}: {value!r} is no {schema['type']}"]
    if kind is list:
        return [each for n, item in enumerate(value) for each in complaints(item, schema["items"], f"{at}[{n}]")]
    if kind is dict:
        known = schema.get("properties", {})
        unknown = [f"{at}.{name} is not in the document" for name in value if name not in known]
        return unknown + [
            each
            for name, inner in value.items()
            if name in known
            for each in complaints(inner, known[name], f"{at}.{name}")
        ]
    is_number = schema.get("format") in ("uint64", "int64") and not value.isdigit()
    return [f"{at}: {value!r} is no {schema['format']}"] if is_number else []


def ask(fake: FakeYouTube, *ids: str, part: str = "statistics") -> dict[str, Any]:
    with urlopen(f"{fake.url}/youtube/v3/videos?part={part}&id={'%2C'.join(ids)}&key=k&alt=json", timeout=5) as answer:  # noqa: S310
        return dict(json.load(answer))


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(rule("answer"), id="as it is"),
        pytest.param(rule("drop", count=2), id="items missing"),
        pytest.param(rule("empty"), id="no items"),
        pytest.param(rule("shuffle"), id="another order"),
        pytest.param(rule("twice"), id="an item twice"),
        pytest.param(rule("change", item={"statistics": {"viewCount": str(2**64 - 1)}}), id="counts hidden"),
        pytest.param(rule("change", item={"statistics": None}), id="no statistics"),
    ],
)
async def test_its_answers_are_video_list_responses(fake_youtube: FakeYouTube, action: dict[str, Any]) -> None:
    """What is kind or merely odd is valid by schemas.VideoListResponse of the packaged document."""
    fake_youtube.script(action)
    fake_youtube.counts["hidden"] = {"likeCount": None, "commentCount": None}
    told = await asyncio.to_thread(ask, fake_youtube, "a", "b", "hidden", "c")
    assert complaints(told, {"$ref": "VideoListResponse"}) == []
    assert told["pageInfo"]["totalResults"] == len(told["items"])


def test_the_validator_complains() -> None:
    """A number where the document has a string is no valid answer."""
    bad = {"items": [{"id": "a", "statistics": {"viewCount": 7, "plays": "7"}}]}
    assert len(complaints(bad, {"$ref": "VideoListResponse"})) == 2


def test_the_call_is_the_one_of_the_document() -> None:
    """Path, method and the parameters that are asked for."""
    method = discovery()["resources"]["videos"]["methods"]["list"]
    assert (method["httpMethod"], method["path"]) == ("GET", "youtube/v3/videos")
    assert method["response"] == {"$ref": "VideoListResponse"}
    assert {"id", "part"} <= set(method["parameters"])


async def test_units_are_booked_on_arrival_bad_requests_too(fake_youtube: FakeYouTube) -> None:
    """A unit a call whatever the ids; a refusal for the quota costs none."""
    fake_youtube.configure(quota=4)
    fake_youtube.gone = {"b"}
    whole = await asyncio.to_thread(ask, fake_youtube, "a", "b", "c")
    assert [each["id"] for each in whole["items"]] == ["a", "c"]
    fake_youtube.script(rule("bad_id", on={"nth": 2}), rule("backend", on={"nth": 3}), rule("hang", on={"nth": 4}))
    seen = []
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", fake_youtube.port)
        writer.write(b"GET /youtube/v3/videos?part=statistics&id=a HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            seen.append(int((await asyncio.wait_for(reader.readline(), 0.2)).split()[1]))
        except TimeoutError:
            seen.append(0)
        writer.close()
    assert seen == [400, 500, 0, 403, 403]
    assert (fake_youtube.units, fake_youtube.requests) == (4, 6)


def test_as_a_process_it_is_driven_from_outside() -> None:
    """Script, world, units and the turn of the day over /__fake/."""
    with run_fake_youtube(quota=1) as fake:
        fake.change(gone=["b"], counts={"a": {"viewCount": "5"}})
        with urlopen(f"{fake.url}/youtube/v3/videos?part=statistics&id=a%2Cb", timeout=5) as answer:  # noqa: S310
            items = json.load(answer)["items"]
        assert [(each["id"], each["statistics"]["viewCount"]) for each in items] == [("a", "5")]
        assert fake.stats()["units"] == 1
        assert fake.call("turn_day", {})["units"] == 0


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_names_its_own_status(name: str) -> None:
    """The code in the body is the one on the wire, as Google has it."""
    status, body = REFUSALS[name]
    assert body["error"]["code"] == status
