"""Whose a page is, by what is in descriptors."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import LINEAR, RAM, machine

from hypgdb import joint, rows
from hypgdb.arguments import Filters
from hypgdb.memory import PAGE
from hypgdb.states import Annotation, States, annotation
from hypgdb.system import Layout

LOW = Layout("9:2", {0: "host", 1: "hyp"})
TYPED = Layout("63:60", {0: "host", 1: "hyp", 2: "guest"})


@pytest.mark.parametrize(
    ("layout", "raw", "expected"),
    [
        (LOW, 0x4, Annotation("hyp")),
        (LOW, 0x14, Annotation("unknown:5")),
        (LOW, 0x0100_0000_0000_0000, None),
        (TYPED, 0x2000_0000_0000_0002, Annotation("hyp")),
        (TYPED, 0x2000_0040_0021_0014, Annotation("guest:0x1001", 0x1001, 0x4000_2000)),
        (TYPED, 0x2000_0000_0000_000E, Annotation("unknown:7")),
        (TYPED, 0x1000_0000_0000_0000, Annotation("locked")),
        (TYPED, 0x3000_0000_0000_0000, Annotation("poisoned")),
        (TYPED, 0x4, None),
    ],
)
def test_annotations(layout: Layout, raw: int, expected: Annotation | None) -> None:
    assert annotation(layout, raw) == expected


# By page: shared by the host, hyp's, hyp's and shared back, nobody's, everybody's, and reserved.
HOST = {
    0: RAM.start | 0x80_0000_0000_07FF,
    1: 4,
    2: RAM.start + 2 * PAGE | 0x100_0000_0000_07FF,
    3: 4,
    5: RAM.start + 5 * PAGE | 0x180_0000_0000_07FF,
}
HYP = {
    0: RAM.start | 0x140_0000_0000_0743,
    1: RAM.start + PAGE | 0x40_0000_0000_0743,
    2: RAM.start + 2 * PAGE | 0xC0_0000_0000_07C3,
    4: RAM.start + 4 * PAGE | 0x40_0000_0000_0743,
}


def test_joint_owners() -> None:
    found = [(page.span.start - RAM.start, page.span.size, *page[1:4]) for page in States(machine(HOST, HYP)).pages]
    assert found == [
        (0, PAGE, "host", "shared-owned", "shared-borrowed"),
        (PAGE, PAGE, "hyp", "no-page", "owned"),
        (2 * PAGE, PAGE, "hyp", "shared-borrowed", "shared-owned"),
        (3 * PAGE, PAGE, "none", "no-page", "no-page"),
        (4 * PAGE, PAGE, "conflict", "owned", "owned"),
        (5 * PAGE, PAGE, "none", "reserved", "no-page"),
        (6 * PAGE, 2 * PAGE, "host", "owned", "no-page"),
    ]


GUEST = joint.GuestSide(0x1001, 0, "owned")
LENT = GUEST._replace(state="shared-borrowed")


@pytest.mark.parametrize(
    ("sides", "annotated", "access", "rule"),
    [
        (("owned", "no-page", ()), None, "rwx", "J1"),
        (("owned", "no-page", ()), "hyp", None, None),
        (("shared-owned", "shared-borrowed", ()), None, "rwx", "J2"),
        (("shared-borrowed", "shared-owned", ()), None, "rwx", "J3"),
        (("no-page", "owned", ()), "hyp", None, "J4"),
        (("no-page", "owned", ()), None, None, None),
        (("no-page", "owned", ()), None, "r--", "J9"),
        (("shared-owned", "no-page", ()), None, "rwx", "J5"),
        (("shared-owned", "no-page", (LENT,)), None, "rwx", None),
        (("shared-owned", "no-page", (LENT,), 1), None, "rwx", "J6"),
        (("shared-owned", "no-page", (LENT, LENT), 2), None, "rwx", "J6"),
        (("shared-owned", "no-page", (LENT, GUEST), 2), None, "rwx", None),
        (("shared-owned", "no-page", (LENT,), 2), None, "rwx", None),
        (("owned", "no-page", (LENT,), 1), None, "rwx", None),
        (("owned", "no-page", (LENT, LENT), 2), None, "rwx", None),
        (("no-page", "owned", (LENT, LENT), 2), None, None, None),
        (("shared-owned", "shared-borrowed", (LENT, LENT), 2), None, "rwx", None),
        (("shared-owned", "no-page", (LENT, LENT), 2), "hyp", "rwx", None),
        (("no-page", "no-page", (GUEST,)), "guest:0x1001", None, "J7"),
        (("no-page", "no-page", (GUEST,)), "guest:0x1000", None, None),
        (("shared-borrowed", "no-page", (GUEST._replace(state="shared-owned"),)), None, "rwx", "J8"),
        ((None, "owned", ()), None, None, None),
    ],
)
def test_legal_joint_states(
    sides: tuple[Any, ...], annotated: str | None, access: str | None, rule: str | None
) -> None:
    found = joint.Sides(*sides, *[None] * (4 - len(sides)))
    assert found.page(RAM, annotated, access, ffa=True).rule == rule


def test_ff_a_is_not_everywhere() -> None:
    found = joint.Sides("shared-owned", "no-page", (), None)
    assert found.page(RAM, None, "rwx", ffa=False).rule is None


def test_private_mappings_do_not_count() -> None:
    # Page 6 of the linear range leads elsewhere.
    states = States(machine({}, {6: RAM.start + 0x74_3000}))
    assert [page.hyp for page in states.pages] == ["no-page"]


def test_rows_and_runs() -> None:
    states = States(machine(HOST | {6: 4, 7: 4}, HYP))
    host, hyp = states.system.regimes
    lines = list(rows.table(states, host, states.entries["host-s2"], Filters(owner="hyp")))
    assert [line.split()[1:] for line in lines[1:]] == [
        ["L3", "annotation", "0x4", "hyp"],
        ["L3", "page", "→", "0x40002000", "rwx", "normal-wb", "shared-borrowed", "hyp"],
        ["L3", "annotation", "0x4", "hyp"],
        ["2×", "L3", "annotation", "0x4", "hyp"],
    ]
    (line,) = list(rows.table(states, hyp, states.entries["hyp-s1"], Filters(state="shared-borrowed")))[1:]
    assert line.split()[0] == f"{LINEAR + RAM.start:#014x}..{LINEAR + RAM.start + PAGE:#014x}"
    assert line.endswith("rw- normal-wb  shared-borrowed  host")


def test_what_is_damaged_is_marked() -> None:
    states = States(machine({0: RAM.start | 1}))
    host = states.system.regimes[0]
    (line,) = list(rows.table(states, host, states.entries["host-s2"], Filters()))[1:]
    assert line.startswith("! 0x000040000000..")
    assert line.endswith("bits 1:0 = 01 are reserved at level 3")
