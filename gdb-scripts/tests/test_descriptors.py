"""Words of which it is known what they say."""

from __future__ import annotations

import pytest
from simulated import MAIR, TCR, VTCR, VTCR_LPA2, host

from hypgdb.descriptors import Limits, Regime, attributes, limits_below, stage1, stage2
from hypgdb.memory import Problem

HYP = stage1(0x4000_0000, TCR, MAIR, 0, e2h=False)


def stage2_of(vtcr: int, fwb: bool = False, xnx: bool = False) -> Regime:
    return stage2("host-s2", 0x4000_0000, vtcr, fwb, xnx)


@pytest.mark.parametrize(
    ("vtcr", "ia_bits", "start", "root_pages", "shift", "lpa2"),
    [
        (VTCR, 40, 1, 2, 12, False),
        (VTCR_LPA2, 52, 0, 16, 12, True),
        (0x802D3590, 48, 0, 1, 12, False),
        (0x80243594, 44, 0, 1, 12, False),
        (0x802DB590, 48, 1, 2, 14, False),
    ],
)
def test_geometry_of_stage_2(vtcr: int, ia_bits: int, start: int, root_pages: int, shift: int, lpa2: bool) -> None:
    regime = stage2_of(vtcr)
    found = (regime.ia_bits, regime.start_level, regime.root_pages, regime.granule_shift, regime.lpa2)
    assert found == (ia_bits, start, root_pages, shift, lpa2)


def test_geometry_of_stage_1() -> None:
    assert (HYP.ia_bits, HYP.start_level, HYP.root_pages, HYP.oa_bits) == (39, 1, 1, 44)
    wide = stage1(0x4000_0008, 0xD500076B58C350C, 0, 0, e2h=True)
    assert (wide.ia_bits, wide.start_level, wide.root_entries, wide.lpa2) == (52, -1, 16, True)
    # BADDR[51:48] are in bits 5:2.
    assert wide.root == 0x2_0000_4000_0000


@pytest.mark.parametrize("control", [0, 0x8000C558, 0x8004_35FF])
def test_registers_that_describe_nothing(control: int) -> None:
    with pytest.raises(Problem):
        stage2_of(control)


@pytest.mark.parametrize(
    ("raw", "access", "memory"),
    [
        (0x480007FF, "rwx", "normal-wb"),
        (0x00400000090007FF, "rw-", "normal-wb"),
        (0x0040000009000447, "r--", "device-nGnRE"),
        (0x4800073F, "--x", "normal-wb"),
        (0x480007D7, "rwx", "normal-nc"),
    ],
)
def test_leaves_of_stage_2(raw: int, access: str, memory: str) -> None:
    found = attributes(host(), raw)
    assert (found.access, found.memory, found.af) == (access, memory, True)


@pytest.mark.parametrize(
    ("raw", "access"), [(0x7FF, "rwx"), (1 << 53 | 0x7FF, "rwu"), (2 << 53 | 0x7FF, "rw-"), (3 << 53 | 0x7FF, "rwx")]
)
def test_execution_by_level_needs_xnx(raw: int, access: str) -> None:
    found = attributes(stage2_of(VTCR, xnx=True), raw)
    assert found.access == access
    assert found.execute_el0 == (raw >> 53 in (0, 1))


def test_forced_write_back() -> None:
    regime = stage2_of(VTCR, fwb=True)
    kinds = [attributes(regime, 0x403 | attr << 2).memory for attr in (1, 4, 5, 6, 7)]
    assert kinds == ["device-nGnRE", "reserved", "normal-nc", "normal-wb", "stage1"]


def test_lpa2_has_no_room_for_shareability() -> None:
    regime = stage2_of(VTCR_LPA2)
    raw = 0x480007FF
    assert regime.address(raw, 12) == 3 << 50 | 0x48000000
    assert attributes(regime, raw).shareability == "inner"


@pytest.mark.parametrize(
    ("raw", "access"),
    [(0x004000007C001743, "rw-"), (0x00C00000410007C3, "r--"), (0x412007C3, "r-x")],
)
def test_leaves_of_stage_1(raw: int, access: str) -> None:
    assert attributes(HYP, raw).access == access


def test_tables_of_stage_1_restrict_what_is_below() -> None:
    limits = limits_below(HYP, 1 << 62 | 1 << 60 | 3, Limits())
    assert attributes(HYP, 0x41200743, limits).access == "r--"
    assert limits_below(host(), 1 << 62 | 3, Limits()) == Limits()


def test_where_blocks_may_be() -> None:
    assert [host().kind(0x480007FD, level) for level in (0, 1, 2, 3)] == ["reserved", "block", "block", "reserved"]
    assert stage2_of(VTCR_LPA2).kind(0x480007FD, 0) == "block"
