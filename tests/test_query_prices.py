"""No run without a known price, and never a price below the truth."""

from __future__ import annotations

import pytest

from queries.errors import Misconfigured
from queries.prices import load_price


@pytest.mark.parametrize(
    ("model", "input_per_m", "output_per_m"),
    [
        ("gpt-4o-mini", 0.15, 0.60),
        ("gpt-4o-mini-2024-07-18", 0.15, 0.60),
        ("gpt-4o", 2.50, 10.00),
        ("gpt-4o-2024-11-20", 2.50, 10.00),
        ("gpt-4o-2024-05-13", 5.00, 15.00),
        ("gpt-4.1", 2.00, 8.00),
        ("gpt-4.1-mini", 0.40, 1.60),
        ("gpt-4.1-nano-2025-04-14", 0.10, 0.40),
        ("gpt-5-mini-2025-08-07", 0.25, 2.00),
        ("text-embedding-3-small", 0.02, 0.0),
        ("text-embedding-3-large", 0.13, 0.0),
        ("text-embedding-ada-002", 0.10, 0.0),
        ("extractive-v1", 0.0, 0.0),
    ],
)
def test_a_model_and_its_snapshots_have_a_price(model: str, input_per_m: float, output_per_m: float) -> None:
    """A dated snapshot costs what its family does, unless the table names it itself."""
    price = load_price(model)
    assert (price.model, price.input_per_m, price.output_per_m) == (model, input_per_m, output_per_m)
    assert price.window >= price.max_output
    assert price.dated


@pytest.mark.parametrize(
    "model", ["gpt-99", "", "ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o-mini-audio-preview", "gpt-4o-mini-2024-07"]
)
def test_an_unknown_model_is_refused_and_told_the_way_on(model: str) -> None:
    """A fine-tuned or look-alike name has another price, so it is not guessed."""
    with pytest.raises(Misconfigured) as refused:
        load_price(model)
    assert "--price" in refused.value.fix
    assert repr(model) in refused.value.what


@pytest.mark.parametrize(
    ("model", "given", "refused"),
    [
        ("text-embedding-3-small", (1, 512, 1536), (0, -1, 1537)),
        ("text-embedding-3-large", (512, 1536, 3072), (3073,)),
        ("text-embedding-ada-002", (1536,), (512, 3072)),
        ("gpt-4o-mini", (512,), ()),
    ],
)
def test_a_model_is_known_by_the_vectors_it_cannot_give(
    model: str, given: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    """A dimension that cannot be had is known before anything is paid; of an unknown model nothing is claimed."""
    for price in (load_price(model), load_price(model, "1/0")):
        assert [d for d in (*given, *refused) if price.gives(d)] == list(given)


def test_an_override_prices_any_model() -> None:
    """--price keeps a known model's limits and gives an unknown one careful ones."""
    known, unknown = load_price("gpt-4.1", "1/2"), load_price("llama3.1:8b", "$0.05/$0.10")
    assert (known.input_per_m, known.output_per_m, known.window) == (1.0, 2.0, 1_047_576)
    assert (unknown.input_per_m, unknown.output_per_m, unknown.dated) == (0.05, 0.10, "--price")
    assert unknown.window > 0


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "a/b", "-1/2", "1/nan", "inf/1", "1,5/2", "/"])
def test_an_unreadable_override_is_refused(text: str) -> None:
    """Money is not guessed from a typing mistake."""
    with pytest.raises(Misconfigured, match="not two prices"):
        load_price("gpt-4o-mini", text)


def test_the_worst_case_counts_both_directions() -> None:
    """A million in and half a million out of gpt-4o-mini is 15 + 30 cents; a batch is half of that."""
    price = load_price("gpt-4o-mini")
    assert price.worst_usd(1_000_000, 500_000) == pytest.approx(0.45)
    assert price.worst_usd(1_000_000, 500_000) * price.batch_factor == pytest.approx(0.225)
    assert price.worst_usd(0, 0) == 0
