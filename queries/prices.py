"""What a call costs at worst: a dated table in prices.toml, or the operator's own figures."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from queries.errors import Misconfigured

PER_M = 1_000_000
UNKNOWN_WINDOW = 128_000
"""Of a model priced by hand and not in the table; what does not fit is refused by the server, item by item."""
UNKNOWN_OUTPUT = 16_384
TILES_MOST = 8
"""Scaled into 2048 x 2048 and then to 768 on the shorter side, an image is at most 4 tiles long and 2 wide."""
UNKNOWN_IMAGE = 3_779
"""1,536 patches at the dearest factor known, 2.46 (gpt-4.1-nano); tokens of other models' images are fewer."""
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True)
class Price:
    """One model's price and limits; `dated` says how old the knowledge is."""

    model: str
    input_per_m: float
    output_per_m: float
    window: int
    max_output: int
    dated: str
    batch_factor: float = 0.5
    dimensions: int = 0
    """Of an embedding model's whole vector; 0 when it is not known."""
    is_cut: bool = False
    """Whether the model gives shorter vectors on request."""
    image_base: int = 0
    image_tile: int = 0

    @property
    def is_free(self) -> bool:
        return self.input_per_m <= 0 and self.output_per_m <= 0

    def worst_usd(self, tokens_in: int, tokens_out: int) -> float:
        """The dearest this call can get: nothing cached, every allowed token written."""
        return (tokens_in * self.input_per_m + tokens_out * self.output_per_m) / PER_M

    def image_tokens(self, detail: str) -> int:
        """The most an image can cost: its size is not known to us."""
        if not self.image_base:
            return UNKNOWN_IMAGE
        return self.image_base + (0 if detail == "low" else TILES_MOST * self.image_tile)

    def gives(self, dimensions: int) -> bool:
        """False only where it is known that this model has no such vectors."""
        return self.dimensions in (0, dimensions) or (self.is_cut and 0 < dimensions < self.dimensions)


def load_price(model: str, override: str | None = None) -> Price:
    """The price of `model` or of the family its snapshot belongs to; `override` is --price IN/OUT in $ per million."""
    table = _table()
    row = _row(table, model)
    if override is not None:
        given = _read_override(override)
        limits = row or {"window": UNKNOWN_WINDOW, "max_output": UNKNOWN_OUTPUT}
        return _price(model, {**limits, "input": given[0], "output": given[1]}, "--price", table["batch_factor"])
    if row is None:
        raise Misconfigured(
            f"The price of {model!r} is not known, and nothing is spent at an unknown price.",
            code="price_unknown",
            fix=f"Name it: --price IN/OUT (dollars per million tokens), or choose one of {', '.join(table['models'])}.",
        )
    return _price(model, row, table["dated"], table["batch_factor"])


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("queries").joinpath("prices.toml").read_text(encoding="utf-8"))


def _row(table: dict[str, Any], model: str) -> dict[str, Any] | None:
    if model in table["local"]:
        return {"input": 0.0, "output": 0.0, **table["local"][model]}
    models: dict[str, dict[str, Any]] = table["models"]
    return models.get(model) or models.get(_SNAPSHOT.sub("", model))


def _price(model: str, row: dict[str, Any], dated: str, batch_factor: float) -> Price:
    return Price(
        model=model,
        input_per_m=float(row["input"]),
        output_per_m=float(row["output"]),
        window=row["window"],
        max_output=row["max_output"],
        dated=dated,
        batch_factor=batch_factor,
        dimensions=row.get("dimensions", 0),
        is_cut=row.get("cut", False),
        image_base=row.get("image", (0, 0))[0],
        image_tile=row.get("image", (0, 0))[1],
    )


def _read_override(text: str) -> tuple[float, float]:
    parts = text.replace("$", "").split("/")
    try:
        prices = tuple(float(part) for part in parts)
    except ValueError:
        prices = ()
    if len(prices) != 2 or not all(math.isfinite(p) and p >= 0 for p in prices):
        raise Misconfigured(
            f"--price {text!r} is not two prices.", code="price_unreadable", fix="Write IN/OUT, for example 0.15/0.60."
        )
    return prices[0], prices[1]
