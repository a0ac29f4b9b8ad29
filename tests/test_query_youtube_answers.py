"""Absent is not zero, hidden is not zero, and one odd item never costs the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import Transient
from queries.youtube import VideoCounts, ViewsAnswer, ViewsRequest
from queries.youtube_answers import read_answer

ASKED = ViewsRequest(("a", "b", "c"))


def item(video_id: Any, views: Any = "7", likes: Any = "3", comments: Any = "1") -> dict[str, Any]:
    told = {"viewCount": views, "likeCount": likes, "commentCount": comments, "favoriteCount": "0"}
    return {"kind": "youtube#video", "id": video_id, "statistics": told}


def read(*items: Any, **beside: Any) -> ViewsAnswer:
    answer = read_answer({"kind": "youtube#videoListResponse", "items": list(items), **beside}, ASKED)
    assert isinstance(answer, ViewsAnswer)
    return answer


def test_order_means_nothing_and_what_is_not_there_is_absent() -> None:
    """By id, never by position; a missing id has no counts, and above all not zero."""
    answer = read(item("c", "9"), item("a"))
    assert answer.found == {"a": VideoCounts("a", 7, 3, 1), "c": VideoCounts("c", 9, 3, 1)}
    assert answer.absent(ASKED) == ("b",)
    assert (answer.odd, answer.strays) == ({}, 0)


@pytest.mark.parametrize(
    ("told", "count"),
    [
        pytest.param("12", 12, id="digits"),
        pytest.param("0", 0, id="zero is a count"),
        pytest.param(12, 12, id="a JSON number"),
        pytest.param(str(2**31 + 1), 2**31 + 1, id="beyond 2^31"),
        pytest.param(str(2**53 + 1), 2**53 + 1, id="beyond 2^53"),
        pytest.param(2**53 + 1, 2**53 + 1, id="beyond 2^53 as a number"),
        pytest.param(str(2**63 - 1), 2**63 - 1, id="the largest a bigint holds"),
        pytest.param(None, None, id="null is hidden"),
    ],
)
def test_counts_are_exact(told: Any, count: int | None) -> None:
    """Strings of digits become integers, whatever their size."""
    assert read(item("a", told)).found["a"].views == count


@pytest.mark.parametrize(
    "told",
    ["1e3", "-1", "", " 12", "12 ", "1,200", "12.0", "0012", "+5", "１２", "32K", "NaN", "0x1F", "1_000", 12.5, 12.0,
     -1, True, [], {}, str(2**63), str(2**64), "9" * 5_000],
)  # fmt: skip
def test_what_is_no_count_names_its_video_and_no_other(told: Any) -> None:
    """It is neither guessed at nor half stored, and it is not absent either; the others are read."""
    answer = read(item("a", likes=told), item("b"), item("c"))
    assert set(answer.found) == {"b", "c"}
    assert answer.odd["a"].startswith("likes ")
    assert answer.absent(ASKED) == ()


@pytest.mark.parametrize("name", ["viewCount", "likeCount", "commentCount"])
def test_a_hidden_count_is_none(name: str) -> None:
    """The field is simply not there."""
    hidden = item("a")
    del hidden["statistics"][name]
    counts = read(hidden).found["a"]
    assert [counts.views, counts.likes, counts.comments].count(None) == 1


@pytest.mark.parametrize("statistics", [None, {}], ids=["null", "empty"])
def test_statistics_that_are_missing_hide_everything(statistics: Any) -> None:
    """The video is there; nothing of it is told."""
    for one in ({"id": "a", "statistics": statistics}, {"id": "a"}):
        assert read(one).found["a"] == VideoCounts("a", None, None, None)


@pytest.mark.parametrize("statistics", [[], "7", 7, [{"viewCount": "7"}]], ids=repr)
def test_statistics_of_another_shape_are_odd(statistics: Any) -> None:
    """Then nothing is known of this one video."""
    answer = read({"id": "a", "statistics": statistics}, item("b"))
    assert answer.odd == {"a": "statistics unreadable"}
    assert set(answer.found) == {"b"}


def test_an_item_told_twice_is_one_if_it_says_the_same() -> None:
    """And is not believed if it does not."""
    assert set(read(item("a"), item("a"), item("b"), item("c")).found) == {"a", "b", "c"}
    answer = read(item("a"), item("b"), item("a", "8"))
    assert answer.odd == {"a": "told twice, differently"}
    assert set(answer.found) == {"b"}
    assert answer.absent(ASKED) == ("c",)


@pytest.mark.parametrize("stranger", [item("z"), item(None), {"statistics": {}}, item(5), "a", None, []], ids=repr)
def test_a_stranger_is_nobodys_counts_and_makes_nobody_absent(stranger: Any) -> None:
    """It may be the one that is missing: the missing one is asked for again another time, and not declared dead."""
    answer = read(stranger, item("a"), item("b"))
    assert set(answer.found) == {"a", "b"}
    assert answer.strays == 1
    assert answer.absent(ASKED) == ()
    assert set(answer.odd) == {"c"}


def test_a_page_that_goes_on_elsewhere_makes_nobody_absent() -> None:
    """A next page was not asked for, so what is missing may be on it."""
    assert read(item("a"), nextPageToken="CAUQAA").absent(ASKED) == ()


@pytest.mark.parametrize(
    "found",
    [None, [], "upstream connect error", 7, {}, {"items": None}, {"items": {}}, {"items": "a"}, {"data": []}],
    ids=repr,
)
def test_what_is_no_page_is_not_believed(found: Any) -> None:
    """It says nothing about any video."""
    assert isinstance(read_answer(found, ASKED), Transient)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "b", "12"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["items", "id", "statistics", "viewCount", "likeCount"]), inner)
    ),
)


@given(st.lists(json_values, max_size=6))
def test_every_id_ends_in_exactly_one_place(items: list[Any]) -> None:
    """Whatever the items are: found, odd or absent, and nothing is found that was not asked for."""
    answer = read(*items)
    places = [*answer.found, *answer.odd, *answer.absent(ASKED)]
    assert sorted(places) == ["a", "b", "c"]
