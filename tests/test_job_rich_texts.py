"""What is asked of a scene and of a video, and which answers may be stored: before and after the money."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import rich_scenes, rich_targets, rich_videos
from jobs.engine.job import Ask, Bad, Good, Means, Skip
from jobs.engine.options import Options
from jobs.rich_scenes import why_not_shown
from jobs.rich_tags import clean_names, make_tags, normalise
from jobs.targets import Target, with_overrides
from queries.chat import ChatAnswer
from queries.errors import Misconfigured
from queries.openai_requests import chat_body
from queries.prices import UNKNOWN_IMAGE, load_price
from queries.table import Row, write_array
from queries.tokens import TokenCounter
from tests.servers.rich_bench import SUMMARY

SAID = "The crane of the old harbour is lifting a red container while two volunteers watch."
URL = "https://cdn.example.com/thumbs/1.jpg"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    return TokenCounter("gpt-4o", tmp_path_factory.mktemp("vocabularies"))


def means_of(target: Target, tokens: TokenCounter, *, is_plan: bool = False) -> Means:
    return Means(target, target.model, tokens, load_price(target.model), Options(), is_plan)


def scene(**values: Any) -> Row:
    given = {"transcript_segment": SAID, "visual_summary": None, "thumbnail_url": None, **values}
    return Row(("v", "0"), "g", given, dict.fromkeys(rich_targets.SCENES.spec.cells))


def video(*scenes: dict[str, Any]) -> Row:
    return Row(("v",), "g", {"filename": "talk"}, dict.fromkeys(SUMMARY.spec.cells), joined=scenes)


def answer_of(text: str | None, finish: str = "stop", refusal: str | None = None) -> ChatAnswer:
    return ChatAnswer(text, finish, refusal, "gpt-4o-2024-11-20", 100, 40)


def shaped(description: str, entities: Any = (), actions: Any = ()) -> str:
    return json.dumps({"description": description, "entities": list(entities), "actions": list(actions)})


def test_a_scene_is_asked_with_its_picture_its_words_and_the_shape(tokens: TokenCounter) -> None:
    """As OpenAI's API takes it: a text part, an image by URL, a strict JSON schema."""
    ask = rich_scenes.PART.prepare(scene(thumbnail_url=URL), means_of(rich_targets.SCENES, tokens))
    assert isinstance(ask, Ask)
    body = chat_body(ask.request)
    text, image = body["messages"][1]["content"]
    assert text == {"type": "text", "text": f"Said: {SAID}"}
    assert image == {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert body["model"] == "gpt-4o"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"transcript_segment": None}, "empty", id="nothing at all"),
        pytest.param({"transcript_segment": "  \n"}, "empty", id="blank"),
        pytest.param({"transcript_segment": "\x01\x02\x03\x04"}, "binary", id="bytes"),
        pytest.param(
            {"transcript_segment": "", "thumbnail_url": "http://a.example/1.jpg"}, "thumbnail is not https", id="http"
        ),
        pytest.param(
            {"transcript_segment": "", "thumbnail_url": "https://10.0.0.1/1.jpg"}, "thumbnail is no address", id="ip"
        ),
    ],
)
def test_a_scene_with_nothing_to_show_is_skipped_unpaid(
    values: dict[str, Any], reason: str, tokens: TokenCounter
) -> None:
    """The reason says what is missing."""
    skip = rich_scenes.PART.prepare(scene(**values), means_of(rich_targets.SCENES, tokens))
    assert isinstance(skip, Skip)
    assert skip.reason == reason


def test_a_picture_that_cannot_be_shown_leaves_the_words(tokens: TokenCounter) -> None:
    """A path in a private bucket is no address; the scene is described from what is said."""
    ask = rich_scenes.PART.prepare(scene(thumbnail_url="thumbs/1.jpg"), means_of(rich_targets.SCENES, tokens))
    assert isinstance(ask, Ask)
    assert ask.request.image_url == ""


def test_without_an_image_column_no_picture_is_shown(tokens: TokenCounter) -> None:
    """image = "" in catchup.toml."""
    target = with_overrides(rich_targets.SCENES, {"image": ""})
    ask = rich_scenes.PART.prepare(scene(thumbnail_url=URL), means_of(target, tokens))
    assert isinstance(ask, Ask)
    assert ask.request.image_url == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/1.jpg",
        "https://localhost/1.jpg",
        "https://127.0.0.1/1.jpg",
        "https://[::1]/1.jpg",
        "https://169.254.169.254/latest",
        "https://user:pass@a.example/1.jpg",
        "https://a.example:8443/1.jpg",
        "https://a.example/1 2.jpg",
        "https://a.example/\n1.jpg",
        "https://a.example/ü.jpg",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "https://" + "a" * 2_000 + ".example/1.jpg",
        "https://[broken/1.jpg",
    ],
)
def test_only_a_public_https_address_is_handed_on(url: str) -> None:
    """The provider would fetch whatever stands there."""
    assert why_not_shown(url)


def test_a_signed_address_is_handed_on_as_it_is() -> None:
    """A storage service's signature is part of it."""
    assert why_not_shown("https://abc.supabase.co/storage/v1/object/sign/thumbs/1.jpg?token=eyJ.x_y-z") == ""


@pytest.mark.parametrize(
    ("model", "detail", "most"),
    [
        ("gpt-4o", "low", 85),
        ("gpt-4o", "high", 85 + 8 * 170),
        ("gpt-4o-mini", "low", 2_833),
        ("gpt-4o-mini", "high", 2_833 + 8 * 5_667),
        ("gpt-4o-2024-11-20", "low", 85),
        ("gpt-4.1", "high", UNKNOWN_IMAGE),
    ],
)
def test_an_image_is_reserved_at_the_most_it_can_cost(model: str, detail: str, most: int) -> None:
    """Its size is not known before it is paid: eight tiles of 512 pixels are the largest."""
    assert load_price(model).image_tokens(detail) == most


def test_the_reservation_counts_words_schema_and_picture(tokens: TokenCounter) -> None:
    """The schema is billed as part of the prompt."""
    plain = rich_scenes.PART.prepare(scene(), means_of(rich_targets.SCENES, tokens))
    shown = rich_scenes.PART.prepare(scene(thumbnail_url=URL), means_of(rich_targets.SCENES, tokens))
    assert isinstance(plain, Ask)
    assert isinstance(shown, Ask)
    assert shown.tokens_in - plain.tokens_in == 85
    words = tokens.count_chat(plain.request.system, plain.request.user)
    assert plain.tokens_in > words + 40


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("A crane lifts a box.", "not the shape that was asked for", id="no json"),
        pytest.param("[]", "not the shape that was asked for", id="a list"),
        pytest.param('{"description": "A crane lifts a box."}', "not the shape that was asked for", id="parts missing"),
        pytest.param(
            shaped("A crane lifts a box.")[:-1] + ', "more": 1}', "not the shape that was asked for", id="more parts"
        ),
        pytest.param(shaped("A crane lifts a box.", [1]), "not the shape that was asked for", id="a number as a name"),
        pytest.param(
            '{"description": 1, "entities": [], "actions": []}', "not the shape that was asked for", id="a number"
        ),
        pytest.param("[" * 5_000, "not the shape that was asked for", id="depth"),
        pytest.param(
            shaped("One is here. Two is here. Three is here."), "not one or two sentences", id="three sentences"
        ),
        pytest.param(shaped("A box."), "not one or two sentences", id="too short"),
        pytest.param(shaped(""), "empty answer", id="empty"),
        pytest.param(shaped("I'm sorry, I can't help with that image."), "refusal", id="refusal in words"),
        pytest.param(shaped(f"Said: {SAID}"), "echo of the input", id="echo"),
    ],
)
def test_what_is_no_description_is_named_and_never_stored(text: str, reason: str, tokens: TokenCounter) -> None:
    """Whatever a server says it enforces, the shape is looked at here."""
    means = means_of(rich_targets.SCENES, tokens)
    ask = rich_scenes.PART.prepare(scene(), means)
    assert isinstance(ask, Ask)
    (bad,) = rich_scenes.PART.judge(replace(ask, is_again=True), answer_of(text), means)
    assert isinstance(bad, Bad)
    assert (bad.reason, bad.again) == (reason, None)


def test_a_slip_of_the_shape_is_asked_once_more(tokens: TokenCounter) -> None:
    """And only once."""
    means = means_of(rich_targets.SCENES, tokens)
    ask = rich_scenes.PART.prepare(scene(), means)
    assert isinstance(ask, Ask)
    (bad,) = rich_scenes.PART.judge(ask, answer_of("no json"), means)
    assert isinstance(bad, Bad)
    assert bad.again is not None
    assert bad.again.request == ask.request
    assert rich_scenes.PART.judge(bad.again, answer_of("no json"), means)[0].again is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("answer", "reason", "is_again"),
    [
        (answer_of(None, refusal="I will not."), "refusal", False),
        (answer_of(None, "content_filter"), "content filter", False),
        (answer_of("{", "length"), "cut off by its length limit", True),
    ],
)
def test_what_the_service_says_of_its_answer_is_believed(
    answer: ChatAnswer, reason: str, is_again: bool, tokens: TokenCounter
) -> None:
    """Cut off, it is asked again with three times the room."""
    for part, target, row in (
        (rich_scenes.PART, rich_targets.SCENES, scene()),
        (rich_videos.PART, SUMMARY, video({"visual_description": SAID})),
    ):
        means = means_of(target, tokens)
        ask = part.prepare(row, means)
        assert isinstance(ask, Ask)
        (bad,) = part.judge(ask, answer, means)
        assert isinstance(bad, Bad)
        assert (bad.reason, bad.again is not None) == (reason, is_again)
        if bad.again:
            assert bad.again.tokens_out_most == 3 * target.max_completion_tokens


def test_a_description_is_contained_and_its_names_become_tags(tokens: TokenCounter) -> None:
    """Plain text in every cell, whatever the model was talked into."""
    means = means_of(rich_targets.SCENES, tokens)
    ask = rich_scenes.PART.prepare(scene(), means)
    assert isinstance(ask, Ask)
    text = shaped(
        "A crane\x1b[31m lifts a <b>box</b>, see https://evil.example/x now.",
        ["The Red Crane", "red crane", "  Container \u202e", "<script>x</script>", "", "https://evil.example"],
        ["Lifting", "lifting", "a " + "very " * 30 + "long thing"],
    )
    (good,) = rich_scenes.PART.judge(ask, answer_of(text), means)
    assert isinstance(good, Good)
    assert good.text == "A crane lifts a box, see now."
    assert good.more["entities"] == ("The Red Crane", "red crane", "Container", "x")
    assert good.more["tags"] == ("red crane", "container", "x", "lifting")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("The Red Crane", "red crane"),
        ("ＦＵＬＬ Ｗｉｄｔｈ", "full width"),
        ("Caf\u0065\u0301", "café"),
        ("  --Hafen-Kran!  ", "hafen-kran"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("A", "a"),
        ("東京タワー", "東京タワー"),
        ("…", ""),
        ("x" * 41, ""),
    ],
)
def test_a_tag_is_the_same_for_the_same_thing(name: str, tag: str) -> None:
    """Small letters, one form of each character, no article, no edges."""
    assert normalise(name) == tag
    assert make_tags([name, name.upper()])[:1] == ((tag,) if tag else ())


def test_lists_are_bounded() -> None:
    """Twelve names, twenty-four tags, however many a model gives."""
    names = [f"thing {n}" for n in range(100)]
    assert len(clean_names(names, "")) == 12
    assert len(make_tags(names)) == 24


@pytest.mark.parametrize("parts", [(), ("a",), ('say "hi"', "back\\slash", "co,mma", "{brace}", "NULL", "", "ü")])
async def test_an_array_is_written_as_postgres_reads_it(parts: tuple[str, ...], database: Any) -> None:
    """No part can end itself or another."""
    rows = await database.run("select %s::text[]", [write_array(parts)])
    assert rows[0][0] == list(parts)


def test_a_video_is_summarised_from_all_its_scenes_in_order(tokens: TokenCounter) -> None:
    """With the names that belong to each."""
    means = means_of(SUMMARY, tokens)
    first = {
        "index": 0,
        "visual_description": "A crane lifts.",
        "visual_entities": ["crane"],
        "visual_actions": ["lifting"],
    }
    ask = rich_videos.PART.prepare(video(first, {"index": 1, "visual_description": "A ship leaves."}), means)
    assert isinstance(ask, Ask)
    assert ask.source == "Scene 1. A crane lifts. (crane, lifting)\nScene 2. A ship leaves."


@pytest.mark.parametrize(
    ("scenes", "reason", "detail"),
    [
        ((), "no scenes", ""),
        (
            ({"visual_description": "A."}, {"visual_description": None}),
            "not every scene is described",
            "1 of 2: scene 2",
        ),
        (({"visual_description": "  "},), "not every scene is described", "1 of 1: scene 1"),
    ],
)
def test_a_video_is_not_summarised_before_every_scene_is_there(
    scenes: tuple[dict[str, Any], ...], reason: str, detail: str, tokens: TokenCounter
) -> None:
    """It is named with what is missing, and costs nothing."""
    skip = rich_videos.PART.prepare(video(*scenes), means_of(SUMMARY, tokens))
    assert isinstance(skip, Skip)
    assert (skip.reason, skip.detail) == (reason, detail)


@pytest.mark.parametrize(("sentences", "fits"), [(1, False), (2, False), (3, True), (5, True), (6, False)])
def test_a_summary_has_three_to_five_sentences(sentences: int, fits: bool, tokens: TokenCounter) -> None:
    """Or as many as there are in its scenes, where those are fewer."""
    means = means_of(SUMMARY, tokens)
    ask = rich_videos.PART.prepare(video(*({"visual_description": f"Crane {n} lifts a box."} for n in range(4))), means)
    assert isinstance(ask, Ask)
    text = " ".join(f"In part {n} somebody moves a large box." for n in range(sentences))
    (verdict,) = rich_videos.PART.judge(ask, answer_of(text), means)
    assert isinstance(verdict, Good) is fits
    short = rich_videos.PART.prepare(video({"visual_description": "A crane lifts a box."}), means)
    assert isinstance(short, Ask)
    (one,) = rich_videos.PART.judge(short, answer_of("Somebody moves a large box."), means)
    assert isinstance(one, Good)


def test_a_recording_too_long_for_the_model_keeps_the_beginning_of_each_scene(tokens: TokenCounter) -> None:
    """The last scene is in it too."""
    means = means_of(SUMMARY, tokens)
    small = replace(means, price=replace(means.price, window=3_000))
    long = "A crane lifts a box and somebody paints it. " * 40
    ask = rich_videos.PART.prepare(video(*({"visual_description": long} for _ in range(20))), small)
    assert isinstance(ask, Ask)
    assert "Scene 20. A crane" in ask.source
    assert ask.tokens_in + 3 * 400 <= 3_000


@pytest.mark.parametrize(
    ("scenes", "summary", "said"),
    [
        ({"key": ["id"]}, {}, "its key must be"),
        ({"cells": {"caption": "answer"}}, {}, "place, caption"),
        ({"image": "poster_url"}, {}, "not among read"),
        (
            {},
            {"joined": {"table": "shots", "on": "video_id", "columns": ["index"], "order_by": "index"}},
            "joined must read",
        ),
    ],
)
def test_targets_that_do_not_belong_together_are_refused(
    scenes: dict[str, Any], summary: dict[str, Any], said: str
) -> None:
    """Before anything is asked."""
    with pytest.raises(Misconfigured, match=said):
        rich_targets.pair(with_overrides(rich_targets.SCENES, scenes), with_overrides(rich_targets.SUMMARY, summary))


def test_a_part_that_no_answer_has_is_refused() -> None:
    """Or its name would stand in the cell."""
    with pytest.raises(Misconfigured, match=r"answer\.labels"):
        with_overrides(rich_targets.SCENES, {"cells": {"visual_description": "answer", "tags": "answer.labels"}})


def test_the_vocabulary_is_not_fetched(tokens: TokenCounter, tmp_path: Path) -> None:
    """These tests count as the model does."""
    assert tokens.exact
