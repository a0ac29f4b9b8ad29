"""What stands in an input file is what a live call sends, under ids that nothing else can have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.batch_requests import Encoded, write_body, write_line
from queries.batches import CHAT, EMBED
from queries.chat import ChatRequest, Schema
from queries.embed import EmbedRequest
from queries.errors import ItemPermanent
from queries.openai_chat import OpenAIChat
from queries.openai_embed import OpenAIEmbed
from tests.servers.bench import KEY
from tests.servers.fake_openai import FakeOpenAI

NASTY = 'quote " backslash \\ newline \n tab \t NUL \x00 ESC \x1b emoji 😀 separator \u2028 markup <script>'


@pytest.fixture
async def chat(fake_openai: FakeOpenAI) -> AsyncIterator[OpenAIChat]:
    made = OpenAIChat(KEY, fake_openai.url)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest("gpt-4o-mini", "Say it.", NASTY, 160),
        ChatRequest("gpt-4o", "Say it.", "seen", 60, "https://a.example/x.jpg", "low", Schema("s", {"type": "object"})),
    ],
    ids=["text", "image"],
)  # fmt: skip
async def test_a_line_asks_exactly_what_a_live_call_asks(
    chat: OpenAIChat, fake_openai: FakeOpenAI, request_: ChatRequest
) -> None:
    """The body in the file equals the body that went over the wire, nasty text included."""
    if not request_.image_url:
        await chat.ask(request_)
        assert json.loads(write_body(request_)) == fake_openai.bodies[-1]
    line = write_line("c1-0", CHAT, request_)
    assert json.loads(line) == {
        "custom_id": "c1-0", "method": "POST", "url": CHAT, "body": json.loads(write_body(request_)),
    }  # fmt: skip
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-ada-002"])
async def test_a_line_of_texts_asks_exactly_what_a_live_call_asks(fake_openai: FakeOpenAI, model: str) -> None:
    """Encoding and dimensions included, which older models do not take."""
    embed = OpenAIEmbed(KEY, fake_openai.url)
    request = EmbedRequest(model, ("one", NASTY), 1536)
    await embed.ask(request)
    await embed.close()
    assert json.loads(write_line("c1-0", EMBED, request))["body"] == fake_openai.bodies[-1]


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_one_line_that_says_it_again(system: str, user: str) -> None:
    """No text can end a line, break the JSON or change another field."""
    line = write_line("c1-0", CHAT, ChatRequest("gpt-4o-mini", system, user, 100))
    assert line.index(b"\n") == len(line) - 1
    said = json.loads(line)["body"]["messages"]
    assert [each["content"] for each in said] == [system, user]


def test_a_body_written_elsewhere_is_the_same_line() -> None:
    """Workers write bodies, and the line is what it would have been."""
    request = ChatRequest("gpt-4o-mini", "Say it.", NASTY, 160)
    assert write_line("a-1", CHAT, Encoded(write_body(request))) == write_line("a-1", CHAT, request)


@pytest.mark.parametrize("custom_id", ["", 'a"b', "a b", "ключ", "x" * 65, "a\n"])
def test_an_id_is_plain_or_a_bug(custom_id: str) -> None:
    """Nothing of a row's data can get into an id."""
    with pytest.raises(ValueError, match="no id for a line"):
        write_line(custom_id, CHAT, Encoded(b"{}"))


def test_text_that_is_no_unicode_is_the_items_fault() -> None:
    """As live: one odd row never stops a file."""
    with pytest.raises(ItemPermanent) as refused:
        write_body(ChatRequest("gpt-4o-mini", "Say it.", "half \ud800", 100))
    assert refused.value.reason == "not_unicode"
