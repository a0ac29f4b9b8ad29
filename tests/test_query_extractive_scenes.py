"""Scenes and recordings without a model: sentences copied from what is said, in the shape and number asked for."""

from __future__ import annotations

import json

import pytest

from jobs.rich_scenes import read_scene
from queries.chat import ChatRequest, Schema
from queries.extractive import LocalChat
from queries.extractive_scenes import describe, roll_up
from queries.sentences import count_sentences

SAID = (
    "Said: Today Anna Berg is lifting the container with the old crane. The crane belongs to Hamburg harbour and "
    "volunteers are painting the crane. Later they will move it. Nobody was hurt."
)


def test_a_scene_is_described_in_its_own_words() -> None:
    """One or two sentences, names by their capitals or their number, actions by their ending."""
    found = read_scene(describe(SAID))
    assert found is not None
    assert found["description"].startswith("Today Anna Berg is lifting the container")
    assert count_sentences(found["description"]) <= 2
    assert "Anna Berg" in found["entities"]
    assert "crane" in found["entities"]
    assert found["actions"] == ["lifting", "painting"]


@pytest.mark.parametrize("user", ["", "Said: ", "Said: \n\n"])
def test_where_nothing_is_said_nothing_is_made_up(user: str) -> None:
    """The row is named as failed, and never written."""
    assert describe(user) == ""


@pytest.mark.parametrize("scenes", [1, 2, 3, 5, 12, 60])
def test_a_recording_has_three_to_five_sentences_of_all_of_it(scenes: int) -> None:
    """Or as many as there are."""
    each = "crane {0} is lifting box {0} over the quay. It is then painted by volunteer {0}"
    text = "\n".join(f"Scene {n}. {each.format(n)} (crane, box)" for n in range(1, scenes + 1))
    said = roll_up(text)
    assert min(3, 2 * scenes) <= count_sentences(said) <= 5
    assert "(crane" not in said
    assert said.index("rane 1 ") == 1


async def test_the_local_provider_answers_in_the_shape_that_is_asked_for() -> None:
    """By the request alone: a shape, scenes, or a plain text."""
    chat = LocalChat()
    shape = Schema("scene", {})
    scene = await chat.ask(ChatRequest("m", "", SAID, 100, schema=shape))
    assert set(json.loads(scene.text or "")) == {"description", "entities", "actions"}
    whole = await chat.ask(ChatRequest("m", "", "Scene 1. A crane is lifting boxes. It is painted. It is old.", 100))
    assert count_sentences(whole.text or "") == 3
    assert scene.model == "extractive-v1"
    await chat.close()
