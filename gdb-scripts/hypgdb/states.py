"""Page states and owners: what each side says of a page."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from .descriptors import attributes, bits
from .joint import GuestSide, Page, Sides, merged
from .memory import PAGE, Problem, Span, find
from .system import HOST, HYP, Layout, System
from .walk import Entry, entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .descriptors import Regime

STATES = ("owned", "shared-owned", "shared-borrowed", "no-page")
LEAVES = ("block", "page")
What = TypeVar("What")


class Annotation(NamedTuple):
    """The owner that an invalid descriptor of stage 2 names, and where a guest has the page."""

    owner: str
    handle: int | None = None
    ipa: int | None = None


def annotation(layout: Layout, raw: int) -> Annotation | None:
    """What an invalid descriptor that is not zero says; `None` where it names nobody."""
    if layout.owner_encoding == "9:2":
        # Since Linux 5.15, "KVM: arm64: Don't overwrite software bits with owner id".
        owner = bits(raw, 9, 2)
        return Annotation(layout.owners.get(owner, f"unknown:{owner}")) if raw == owner << 2 else None
    # A type, since there is `enum kvm_invalid_pte_type`: 1 while a descriptor is replaced, 3 where a guest lost a page.
    kind = bits(raw, 63, 60)
    if kind != 2:
        return {1: Annotation("locked"), 3: Annotation("poisoned")}.get(kind)
    number = bits(raw, 3, 1)
    owner_name = layout.owners.get(number, f"unknown:{number}")
    if owner_name != "guest":
        return Annotation(owner_name)
    # 16 bits of handle and 40 of frame number, in the donation's 56 spare bits.
    handle, frame = bits(raw, 19, 4), bits(raw, 59, 20)
    return Annotation(f"guest:{handle:#x}", handle, frame * PAGE)


def software_state(raw: int) -> str:
    """The state in bits 56:55 of a leaf. Both are kept for lending."""
    return (*STATES[:3], "reserved")[bits(raw, 56, 55)]


class Said(NamedTuple):
    """Something that is said of a range of physical addresses; of a state `None` where it could not be read."""

    span: Span
    what: str | None


@dataclass
class States:
    """All states of a machine that stands still."""

    system: System

    @cached_property
    def entries(self) -> dict[str, list[Entry]]:
        """The descriptors of each regime."""
        return {regime.name: entries(regime, self.system.memory) for regime in self.system.regimes}

    @cached_property
    def _records(self) -> list[tuple[Span, bytes]]:
        """Runs of pages with the same record."""
        records, found = self.system.layout.records, []
        assert records
        for region in self.system.ram:
            data = self._read_hyp(
                records.base + region.start // PAGE * records.size, region.size // PAGE * records.size
            )
            at = region.start
            for record, run in groupby(struct.iter_unpack(f"{records.size}s", data)):
                size = PAGE * sum(1 for _ in run)
                found.append((Span(at, size), record[0]))
                at += size
        return found

    def _read_hyp(self, va: int, size: int) -> bytes:
        """Bytes at an address of EL2's, which its tables may have in pieces."""
        leaves, data = self.entries["hyp-s1"], bytearray()
        at = bisect_right(leaves, va, key=lambda entry: entry.ia) - 1
        while len(data) < size:
            here = va + len(data)
            if not 0 <= at < len(leaves) or here not in Span(leaves[at].ia, leaves[at].size) or leaves[at].oa is None:
                raise Problem(f"EL2 has nothing at {here:#x}, where page records should be")
            offset = here - leaves[at].ia
            data += self.system.memory.read(
                (leaves[at].oa or 0) + offset, min(leaves[at].size - offset, size - len(data))
            )
            at += 1
        return bytes(data)

    @cached_property
    def host(self) -> list[Said]:
        """The host's side, sorted; what is not mentioned is its own."""
        records = self.system.layout.records
        if records:
            return [Said(span, _state(records.host.of(data))) for span, data in self._records]
        found = []
        for entry in self.entries["host-s2"]:
            state: str | None = "no-page"
            if entry.kind in LEAVES:
                state = software_state(entry.raw)
            elif entry.kind in ("loop", "unreadable"):
                state = None
            found.append(Said(Span(entry.ia, entry.size), state))
        return found

    @cached_property
    def hyp(self) -> list[Said]:
        """The side of the hypervisor, sorted; what is not mentioned it does not have."""
        records = self.system.layout.records
        if records and records.hyp:
            flip = 3 if records.hyp_inverted else 0
            field = records.hyp
            return [Said(span, _state(field.of(data) ^ flip)) for span, data in self._records]
        found = []
        for entry in self.entries["hyp-s1"]:
            # All other mappings are private: stacks, the fixmap, the page that is mapped where it is.
            pa = self.system.linear_pa(entry.ia)
            if entry.kind in LEAVES and entry.oa == pa:
                found.append(Said(Span(pa, entry.size), software_state(entry.raw)))
            elif entry.kind in ("loop", "unreadable"):
                found.append(Said(Span(pa, entry.size), None))
        return sorted(found, key=lambda said: said.span)

    @cached_property
    def _guests(self) -> list[tuple[Span, GuestSide]]:
        """The guests' sides, sorted."""
        found = []
        for vm in self.system.vms:
            for entry in self.entries.get(f"guest-s2:{vm.handle:#x}", []):
                if entry.oa is not None:
                    side = GuestSide(vm.handle, entry.ia, software_state(entry.raw))
                    found.append((Span(entry.oa, entry.size), side))
        return sorted(found)

    @cached_property
    def pages(self) -> list[Page]:
        """All of RAM, neighbours that say the same in one."""
        return list(merged(self._sweep()))

    @cached_property
    def _annotated(self) -> list[Said]:
        """Owners that the host's tables name."""
        regime = self.system.regime("host-s2")
        named = [(entry, self.owner_in(regime, entry)) for entry in self.entries["host-s2"]]
        return [Said(Span(entry.ia, entry.size), owner.owner) for entry, owner in named if owner]

    @cached_property
    def _access(self) -> list[Said]:
        """What the host may do."""
        regime, found = self.system.regime("host-s2"), list[Said]()
        for entry in self.entries["host-s2"]:
            if entry.kind in LEAVES:
                access = attributes(regime, entry.raw, entry.limits).access
                found.append(Said(Span(entry.ia, entry.size), access))
        return found

    @cached_property
    def _counts(self) -> list[tuple[Span, int]]:
        """How many guests a page is lent to, of those that are."""
        records = self.system.layout.records
        if not records or not records.share_count:
            return []
        counts = [(span, records.share_count.of(data)) for span, data in self._records]
        return [(span, count) for span, count in counts if count]

    def _sweep(self) -> Iterator[Page]:
        host, hyp = _Track(self.host, "owned"), _Track(self.hyp, "no-page")
        annotated, access = _Track(self._annotated, None), _Track(self._access, None)
        counts = _Track(self._counts, None)
        every = (self.host, self.hyp, self._annotated, self._access, self._counts, self._guests)
        spans = [said[0] for side in every for said in side] + self.system.ram
        ordered = sorted({edge for span in spans for edge in (span.start, span.end)})
        waiting, here = list(reversed(self._guests)), list[tuple[Span, GuestSide]]()
        for start, end in pairwise(ordered):
            while waiting and waiting[-1][0].start <= start:
                here.append(waiting.pop())
            here = [(span, side) for span, side in here if start in span]
            if find(self.system.ram, start) is None:
                continue
            guests = tuple(
                sorted(GuestSide(side.handle, side.ipa + start - span.start, side.state) for span, side in here)
            )
            sides = Sides(host.at(start), hyp.at(start), guests, counts.at(start))
            ffa = self.system.layout.ffa
            yield sides.page(Span(start, end - start), annotated.at(start), access.at(start), ffa)

    def page(self, pa: int) -> Page | None:
        """What all sides say of one address; `None` of what is no RAM."""
        return next((page for page in self.pages if pa in page.span), None)

    def state_of(self, regime: Regime, entry: Entry) -> str | None:
        """What a leaf's own side says of what it maps; `None` of what has no state, as devices."""
        if entry.oa is None:
            return "no-page" if self.owner_in(regime, entry) else None
        if regime.name.startswith("guest-s2"):
            return software_state(entry.raw)
        if find(self.system.ram, entry.oa) is None:
            return None
        if not self.system.layout.records:
            return software_state(entry.raw)
        side = self.host if regime.name == "host-s2" else self.hyp
        span = Span(entry.oa, entry.size)
        states = {said.what for said in _overlapping(side, span)}
        return states.pop() if len(states) == 1 else "mixed"

    def owner_in(self, regime: Regime, entry: Entry) -> Annotation | None:
        """The owner that an invalid entry names. EL2's own tables name none."""
        if entry.kind != "invalid" or regime.stage != 2:
            return None
        return annotation(self.system.layout, entry.raw)

    def owner_of(self, regime: Regime, entry: Entry, state: str | None) -> str | None:
        """Who has what an entry is about: the owner in it, or for a leaf whoever lends or owns what it maps."""
        named = self.owner_in(regime, entry)
        if named:
            return named.owner
        if state in ("owned", "shared-owned"):
            return {"host-s2": HOST, "hyp-s1": HYP}.get(regime.name) or regime.name.replace("-s2", "", 1)
        if state != "shared-borrowed" or entry.oa is None:
            return None
        page = self.page(entry.oa)
        return None if page is None or page.owner in ("none", "conflict") else page.owner


def _state(value: int) -> str:
    return STATES[value] if value < len(STATES) else "reserved"


class _Track(Generic[What]):
    """One side, asked for ever higher addresses."""

    def __init__(self, said: Sequence[tuple[Span, What]], otherwise: What) -> None:
        self.said, self.otherwise, self.next = said, otherwise, 0

    def at(self, address: int) -> What:
        while self.next < len(self.said) and self.said[self.next][0].end <= address:
            self.next += 1
        if self.next < len(self.said) and address in self.said[self.next][0]:
            return self.said[self.next][1]
        return self.otherwise


def _overlapping(said: list[Said], span: Span) -> list[Said]:
    """Those that touch the span; they are sorted and disjoint."""
    first = bisect_right(said, span.start, key=lambda said: said.span.end)
    return said[first : bisect_left(said, span.end, key=lambda said: said.span.start)]
