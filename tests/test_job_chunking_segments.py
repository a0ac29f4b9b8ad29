"""Transcripts become chunks of 30 to 60 seconds that overlap and keep their times, from every shape they come in."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.chunking import Chunk, Chunking, chunk_segments
from jobs.chunking_segments import Segment, read_segments

SEGMENTS = Chunking("segments")


def in_words(text: str) -> int:
    return len(text.split())


def speak(*, seconds: float, count: int, words: int = 8, point_every: int = 3, gap: float = 0.0) -> list[Segment]:
    """A speaker whose words are numbered; every third segment ends a sentence."""
    segments = []
    for n in range(count):
        said = " ".join(f"w{n * words + k}" for k in range(words)) + ("." if n % point_every == point_every - 1 else "")
        segments.append(Segment(n * (seconds + gap), n * (seconds + gap) + seconds, said))
    return segments


@st.composite
def transcripts(draw: st.DrawFn) -> list[Segment]:
    """Short and long segments, pauses and overlaps, words that are all different; never back in time."""
    segments, now, word = [], 0.0, 0
    for _ in range(draw(st.integers(0, 60))):
        now += draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 4.0, 70.0, 600.0]))
        lasts = draw(st.sampled_from([0.0, 1.5, 3.0, 5.0, 12.0, 45.0, 200.0]))
        words = draw(st.integers(0, 40))
        said = " ".join(f"w{word + k}" for k in range(words))
        said += draw(st.sampled_from(["", ".", "。", "\n"])) if words else " "
        segments.append(Segment(now, now + lasts + draw(st.sampled_from([0.0, 0.0, 1.0])), said))
        now, word = now + lasts, word + words
    return segments


@given(segments=transcripts(), overlap=st.sampled_from([None, 0.0, 0.3]), most=st.sampled_from([40, 120, 512]))
@settings(max_examples=300, deadline=None)
def test_every_word_once_in_order_and_times_rise(segments: list[Segment], overlap: float | None, most: int) -> None:
    """Whatever the rhythm of speech: all words, none over the limit, times that never go back."""
    chunking = Chunking("segments", most, overlap_share=overlap)
    chunks = chunk_segments(segments, chunking, in_words)
    assert chunks == chunk_segments(segments, chunking, in_words)
    assert [in_words(chunk.text) for chunk in chunks] == [chunk.tokens for chunk in chunks]
    assert all(chunk.tokens <= most for chunk in chunks)
    words = [word for segment in segments for word in segment.text.split()]
    place = {word: n for n, word in enumerate(words)}
    covered = 0
    for chunk in chunks:
        places = [place[word] for word in chunk.text.split()]
        assert places == list(range(places[0], places[0] + len(places)))
        assert places[0] <= covered < places[-1] + 1
        covered = places[-1] + 1
    assert covered == len(words)
    starts, ends = [chunk.start_s or 0 for chunk in chunks], [chunk.end_s or 0 for chunk in chunks]
    assert all(start <= end for start, end in zip(starts, ends, strict=True))
    assert starts == sorted(starts)
    until = [segment.end_s or 0 for segment in segments]
    assert ends == sorted(ends) or until != sorted(until), "a caption may stay while the next is spoken"


@given(segments=transcripts())
@settings(max_examples=200, deadline=None)
def test_a_minute_is_not_passed_by_what_says_enough(segments: list[Segment]) -> None:
    """Longer than 60 s is only what waits for its first 16 tokens, the last few words, or one slow segment."""
    for chunk in chunk_segments(segments, SEGMENTS, in_words)[:-1]:
        assert chunk.start_s is not None
        assert chunk.end_s is not None
        slow = any(
            segment.end_s - segment.start_s >= 12 and len(segment.text) * 7.2 / (segment.end_s - segment.start_s) < 40
            for segment in segments
            if segment.start_s is not None and segment.end_s is not None
        )
        few = 16 + 40  # the first least tokens, and the segment that brought them
        assert chunk.end_s - chunk.start_s <= 61 or chunk.tokens <= few or slow


@pytest.mark.parametrize("seconds", [2.0, 3.7, 5.0, 7.0, 14.0, 45.0, 100.0])
def test_30_to_60_seconds_with_10_to_15_percent_overlap(seconds: float) -> None:
    """Whether segments are captions of two seconds or scenes of more than a minute."""
    segments = speak(seconds=seconds, count=int(1_200 / seconds), words=int(seconds * 2.5))
    chunks = chunk_segments(segments, SEGMENTS, in_words)
    assert all(30 <= chunk.end_s - chunk.start_s <= 60.01 for chunk in chunks[:-1])  # type: ignore[operator]
    shares = [
        (before.end_s - after.start_s) / (before.end_s - before.start_s)  # type: ignore[operator]
        for before, after in pairwise(chunks)
    ]
    assert 0.08 <= sum(shares) / len(shares) <= 0.15
    assert all(0.03 <= share <= 0.24 for share in shares)


def test_short_segments_keep_their_own_times() -> None:
    """Every start is a caption's start and every end a caption's end: a player can jump there."""
    segments = speak(seconds=4, count=100)
    chunks = chunk_segments(segments, SEGMENTS, in_words)
    assert {chunk.start_s for chunk in chunks} <= {segment.start_s for segment in segments}
    assert {chunk.end_s for chunk in chunks} <= {segment.end_s for segment in segments}
    assert all(chunk.text.endswith(".") for chunk in chunks[:-1])


def test_a_short_clip_is_one_chunk() -> None:
    """DOMAIN (3): clips under the least gave no chunk and were never found."""
    chunks = chunk_segments([Segment(0.5, 2.0, " Hello\nthere "), Segment(2.0, 3.0, "you")], SEGMENTS, in_words)
    assert chunks == [Chunk("Hello there you", 3, 0.5, 3.0)]


def test_the_last_words_join_the_chunk_before() -> None:
    """A thank-you after the last minute is no chunk of its own."""
    segments = [*speak(seconds=5, count=12), Segment(60, 62, "Thank you.")]
    chunks = chunk_segments(segments, Chunking("segments", overlap_share=0), in_words)
    assert len(chunks) == 1
    assert chunks[0].end_s == 62
    assert chunks[0].text.endswith("Thank you.")


def test_a_long_silence_ends_a_chunk() -> None:
    """What was said five minutes apart does not stand together, and nothing is repeated over the gap."""
    early, late = speak(seconds=5, count=4), speak(seconds=5, count=4)
    later = [Segment(s.start_s + 320, s.end_s + 320, s.text) for s in late]  # type: ignore[operator]
    chunks = chunk_segments([*early, *later], SEGMENTS, in_words)
    assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(0, 20), (320, 340)]


def test_without_times_it_is_a_text() -> None:
    """One segment without a time, and all are read by paragraphs, without any."""
    segments = [*speak(seconds=5, count=200), Segment(None, None, "and so on")]
    chunks = chunk_segments(segments, SEGMENTS, in_words)
    assert all(chunk.start_s is None and chunk.end_s is None for chunk in chunks)
    assert [chunk.tokens for chunk in chunks][:-1] == [600, 600]
    assert chunk_segments([Segment(None, None, " ")], SEGMENTS, in_words) == []


@pytest.mark.parametrize("kind", ["whole", "paragraphs", "sentences", "fixed"])
def test_other_kinds_keep_the_times(kind: str) -> None:
    """A transcript cut by size still says where each chunk was spoken."""
    chunks = chunk_segments(speak(seconds=5, count=200), Chunking(kind), in_words)  # type: ignore[arg-type]
    assert chunks[0].start_s == 0
    assert chunks[-1].end_s == 1_000
    assert len(chunks) == 1 or all(after.start_s <= before.end_s for before, after in pairwise(chunks))  # type: ignore[operator]


def test_ten_hours_are_counted_in_proportion() -> None:
    """Each caption once, each chunk once: no more than that, however long the recording."""
    spent = 0

    def count(text: str) -> int:
        nonlocal spent
        spent += len(text)
        return in_words(text)

    segments = speak(seconds=3, count=12_000)
    chunks = chunk_segments(segments, SEGMENTS, count)
    assert spent <= 3 * sum(len(segment.text) for segment in segments)
    assert 600 <= len(chunks) <= 1_400


YOUTUBE = [{"start": 0.0, "duration": 2.5, "text": "so"}, {"start": "2.5", "duration": "1", "text": "then"}]
WHISPER = {
    "language": "en",
    "segments": [{"id": 0, "start": 0, "end": 2.5, "text": " so"}, {"start": 2.5, "end": 3.5, "text": " then"}],
}
ROWS = (
    {"start_s": Decimal("0"), "end_s": Decimal("2.5"), "transcript_segment": "so", "visual_summary": "a desk"},
    {"start_s": Decimal("2.5"), "end_s": Decimal("3.5"), "transcript_segment": "then", "visual_summary": None},
    {"start_s": Decimal("3.5"), "end_s": Decimal("9"), "transcript_segment": None, "visual_summary": "silence"},
)
OWN_NAMES = [{"from": 0, "to": 2.5, "said": "so"}, {"from": 2.5, "to": 3.5, "said": "then"}]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (YOUTUBE, ()),
        (WHISPER, ()),
        (json.dumps(YOUTUBE), ()),
        (json.dumps(WHISPER).encode(), ()),
        (ROWS, ("start_s", "end_s", "transcript_segment")),
        (ROWS, ()),
        (OWN_NAMES, ("from", "to", "said")),
        ([{"start": 0, "text": "so"}, {"start": 2.5, "end": 3.5, "text": "then"}], ()),
    ],
    ids=["youtube", "whisper", "json", "bytes", "rows", "rows-by-usual-names", "own-names", "ends-missing"],
)
def test_shapes_of_a_transcript(value: object, names: tuple[str, ...]) -> None:
    """The same two segments, however they are kept; a silent scene has no words to embed."""
    read = read_segments(value, *names)
    assert [(segment.start_s, segment.end_s, segment.text.strip()) for segment in read] == [
        (0.0, 2.5, "so"),
        (2.5, 3.5, "then"),
    ]


@pytest.mark.parametrize(
    "value", [None, "", "  ", [], "[]", {"segments": []}, [{"text": None}], [{"text": " "}]], ids=repr
)
def test_nothing_said_is_no_segment(value: object) -> None:
    """An empty transcript is a row to skip, no fault."""
    assert read_segments(value) == []


def test_words_without_times_are_read() -> None:
    """Their order is all that is known."""
    assert read_segments([{"text": "so"}, {"text": "then", "start": None}]) == [
        Segment(None, None, "so"),
        Segment(None, None, "then"),
    ]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("not json", "the transcript is not JSON"),
        ("[" * 100_000, "the transcript is not JSON"),
        ('"words"', "the transcript is not a list of segments"),
        (7, "the transcript is not a list of segments"),
        ({"words": []}, "the transcript is not a list of segments"),
        (["so"], "segment 1 is not an object"),
        ([{"text": "so"}, {"start": 1}], "segment 2 has no 'text'"),
        ([{"text": ["so"]}], "'text' of segment 1 is not text"),
        ([{"text": "so", "start": "early"}], "'start' of segment 1 is not a number of seconds"),
        ([{"text": "so", "start": True}], "'start' of segment 1 is not a number of seconds"),
        ([{"text": "so", "start": -1}], "'start' of segment 1 is not a number of seconds"),
        ('[{"text": "so", "start": NaN}]', "'start' of segment 1 is not a number of seconds"),
        ([{"text": "so", "start": 1, "duration": []}], "'duration' of segment 1 is not a number of seconds"),
        ([{"text": "so", "start": 4, "end": 2}], "segment 1 ends (2 s) before it starts (4 s)"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_shape_is_named(value: object, sentence: str) -> None:
    """One sentence that says which segment and what about it, for the books of skipped rows."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole sentence is compared
        read_segments(value)
    assert str(refused.value) == sentence


def test_the_pieces_of_a_scene_share_its_time() -> None:
    """Two minutes in one segment become chunks whose times follow the characters."""
    words = " ".join(f"word{n:04}" for n in range(300))
    chunks = chunk_segments([Segment(100, 220, words)], Chunking("segments", overlap_share=0), in_words)
    for chunk in chunks:
        first = int(chunk.text[4:8])
        assert chunk.start_s == pytest.approx(100 + 120 * first / 300, abs=0.5)
    assert (chunks[0].start_s, chunks[-1].end_s) == (100, 220)
