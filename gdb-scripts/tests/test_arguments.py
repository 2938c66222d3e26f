"""What stands behind a command."""

from __future__ import annotations

import pytest

from hypgdb.arguments import Filters, filters
from hypgdb.memory import Problem, Span

ALLOWED = ("owner", "state", "each")


def evaluate(expression: str) -> int:
    return int(eval(expression))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Filters()),
        ("0x1000", Filters(Span(0x1000, 1))),
        ("0x1000..0x1000 + 0x2000", Filters(Span(0x1000, 0x2000))),
        ("/owner hyp 4096 /each", Filters(Span(0x1000, 1), owner="hyp", each=True)),
    ],
)
def test_what_is_understood(text: str, expected: Filters) -> None:
    assert filters(text, evaluate, ALLOWED) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("/kind page", "/kind is no option here"),
        ("/owner", "needs a value"),
        ("2..1", "is empty"),
        ("1..1", "is empty"),
    ],
)
def test_what_is_not(text: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        filters(text, evaluate, ALLOWED)
