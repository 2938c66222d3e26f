"""Sound tables, and damaged ones: of those there is a marked entry, and the rest."""

from __future__ import annotations

import pytest
from simulated import LAST, NEXT, ROOT, VTCR_LPA2, Words, host

from hypgdb.descriptors import stage2
from hypgdb.memory import Problem, Span
from hypgdb.walk import entries, output, translate

SOUND = {ROOT + 8: NEXT | 3, NEXT: LAST | 3, NEXT + 8: 0x402007FD, LAST: 0x400007FF, LAST + 8: 4}
IA = 0x4000_0000


def test_everything_in_order() -> None:
    found = [(entry.ia - IA, entry.level, entry.kind, entry.oa) for entry in entries(host(), Words(SOUND))]
    assert found == [(0, 3, "page", IA), (0x1000, 3, "invalid", None), (0x20_0000, 2, "block", 0x4020_0000)]


def test_a_range() -> None:
    found = entries(host(), Words(SOUND), Span(IA + 0x1234, 1))
    assert [entry.raw for entry in found] == [4]
    memory = Words(SOUND)
    assert entries(host(), memory, Span(0x8000_0000, 1)) == []
    assert memory.reads == 1


@pytest.mark.parametrize(
    ("at", "word", "kind", "level", "problem"),
    [
        (LAST + 16, 0x4200_0001, "reserved", 3, "reserved at level 3"),
        (NEXT + 16, NEXT | 3, "loop", 2, "walked already"),
        (NEXT + 16, ROOT | 3, "loop", 2, "walked already"),
        (NEXT + 16, 0x7_0000_0003, "unreadable", 2, "0x700000000 is no RAM"),
        (LAST + 16, 0x8000_4000_07FF, "reserved", 3, "44 bits"),
    ],
)
def test_damage_is_marked_and_the_rest_stays(at: int, word: int, kind: str, level: int, problem: str) -> None:
    memory = Words(SOUND | {at: word})
    marked = [entry for entry in entries(host(), memory) if entry.problem]
    assert [(entry.kind, entry.level, entry.raw) for entry in marked] == [(kind, level, word)]
    assert problem in str(marked[0].problem)
    rest = [entry for entry in entries(host(), memory) if not entry.problem]
    assert rest == entries(host(), Words(SOUND))


def test_a_root_that_cannot_be_read() -> None:
    (entry,) = entries(host(), Words({}, ram=Span(0, 8)))
    assert (entry.kind, entry.raw, entry.at) == ("unreadable", 0, ROOT)


def test_tables_that_all_point_to_each_other_end() -> None:
    every = {table + 8 * index: NEXT | 3 for table in (ROOT, NEXT, LAST) for index in range(512)}
    memory = Words(every)
    assert {entry.kind for entry in entries(host(), memory)} == {"loop"}
    assert memory.reads < 10


def test_concatenated_root_tables() -> None:
    regime = stage2("host-s2", ROOT, VTCR_LPA2, fwb=False, xnx=False)
    (entry,) = entries(regime, Words({ROOT + 8 * 8191: 0x4FD}))
    assert (entry.ia, entry.kind, entry.size) == (8191 << 39, "block", 1 << 39)


def test_the_way_of_one_address() -> None:
    memory = Words(SOUND)
    steps = translate(host(), memory, IA + 0x20_1234)
    assert [(step.table, step.index) for step in steps] == [(ROOT, 1), (NEXT, 1)]
    assert output(host(), memory, IA + 0x20_1234) == 0x4020_1234
    assert output(host(), memory, IA + 0x1000) is None
    assert translate(host(), memory, 0)[-1].entry.kind == "zero"
    with pytest.raises(Problem, match="40 bits"):
        translate(host(), memory, 1 << 40)
