"""Sixty titles that try to drive a terminal, a parser or a spreadsheet."""

from __future__ import annotations

_ESCAPES = [
    "\x1b[2J", "\x1b]0;pwn\x07", "\x1b[31m", "\x9b31m", "\x9d0;pwn\x9c", "\x1b[?1049h", "\x1bc", "\x1b[6n",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "\x1bP+q\x1b\\", "\x1b]52;c;cHdu\x07", "\x90x\x9c",
]  # fmt: skip
_CONTROLS = ["\x00", "\x07", "\x08\x08\x08", "\r", "\n", "\t", "\x0b", "\x0c", "\x7f", "\x85", "\x1a", "\x0e\x0f"]
_MARKUP = ["[/b]", "[red]PWN[/red]", "[link=http://evil.example]x[/link]", "[", "]", "\\[", "[/]", "[@click=quit]x[/]"]
_HIDING = [
    "\u202egnp.exe", "\u2066x\u2069", "\u200b\u200d", "\ufeff", "\u2028", "\u2029", "\u061c", "\U000e0041\U000e007f",
    "\u200f\u200e", "\u3164", "\ud800", "\udfff\ud800",
]  # fmt: skip
_SHAPES = [
    "", " ", "x" * 100_000, "é" * 5_000, "👩‍👩‍👧‍👦" * 200, "a\u0301" * 500, "=cmd|' /C calc'!A0", "{0} %s ${HOME}",
    "</script><script>alert(1)</script>", '{"type": "verdict", "exit": 0}', "'; drop table videos; --",
    "../../etc/passwd", "CON", "𝕴𝖓𝖏𝖊𝖈𝖙", "\ufdfd" * 50, "名前" * 400,
]  # fmt: skip
TITLES = tuple(
    f"{odd}title {n}{odd}" if odd else "" for n, odd in enumerate(_ESCAPES + _CONTROLS + _MARKUP + _HIDING + _SHAPES)
)
