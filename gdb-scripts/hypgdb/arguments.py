"""What stands behind a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .memory import Problem, Span

if TYPE_CHECKING:
    from collections.abc import Callable

TAKE_A_VALUE = ("owner", "state", "kind", "regime")


@dataclass(frozen=True)
class Filters:
    """Which entries are wanted."""

    within: Span | None = None
    owner: str | None = None
    state: str | None = None
    kind: str | None = None
    regime: str | None = None
    each: bool = False


def filters(argument: str, evaluate: Callable[[str], int], allowed: tuple[str, ...]) -> Filters:
    """`[RANGE] [/option value] …`, with these options only."""
    found: dict[str, str | bool] = {}
    expression: list[str] = []
    words = argument.split()
    while words:
        word = words.pop(0)
        if not word.startswith("/"):
            expression.append(word)
            continue
        name = word.removeprefix("/")
        if name not in allowed:
            raise Problem(f"{word} is no option here: " + ", ".join(f"/{option}" for option in allowed))
        if name in TAKE_A_VALUE:
            if not words:
                raise Problem(f"{word} needs a value")
            found[name] = words.pop(0)
        else:
            found[name] = True
    within = span(" ".join(expression), evaluate) if expression else None
    return Filters(within, **found)  # type: ignore[arg-type]


def span(text: str, evaluate: Callable[[str], int]) -> Span:
    """`ADDRESS`, which is one byte, or `FIRST..END`."""
    first, dots, end = text.partition("..")
    start = evaluate(first)
    size = evaluate(end) - start if dots else 1
    if size <= 0:
        raise Problem(f"the range {text} is empty: its end is the address behind it")
    return Span(start, size)
