"""Joint states: whose a page is, by what all sides say of it, and whether the sides fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .memory import PAGE, Span
from .system import HOST, HYP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# Of the host's side, the hypervisor's, and the owner that the host's tables name.
ALONE: dict[tuple[str | None, str | None, str | None], str] = {
    ("owned", "no-page", None): "J1",
    ("shared-owned", "shared-borrowed", None): "J2",
    ("shared-borrowed", "shared-owned", None): "J3",
    ("no-page", "owned", HYP): "J4",
}


class GuestSide(NamedTuple):
    """What a guest says of a page, and where it has it."""

    handle: int
    ipa: int
    state: str

    @property
    def name(self) -> str:
        """The guest, as owners are called."""
        return f"guest:{self.handle:#x}"


class Page(NamedTuple):
    """A physical range with the same states on each side. `ipa` in `guests` is that of its first page."""

    span: Span
    owner: str
    host: str | None
    hyp: str | None
    guests: tuple[GuestSide, ...]
    # How many guests its record says that it is lent to, if any.
    lent: int | None
    # Which of the legal joint states this is, J1 to J10, if any. J10 names no page, so that it is not found here.
    rule: str | None

    def at(self, pa: int) -> Page:
        """What it says of the one page that holds an address."""
        start = pa // PAGE * PAGE
        return _moved(self, start - self.span.start)._replace(span=Span(start, PAGE))


class Sides(NamedTuple):
    """What each side says of a range, `None` where a table could not be read, and its record's count."""

    host: str | None
    hyp: str | None
    guests: tuple[GuestSide, ...]
    lent: int | None

    def page(self, span: Span, annotated: str | None, access: str | None, ffa: bool) -> Page:
        """All that, with the owner that the host's tables name, what they let it do, and whether there is FF-A."""
        rule = _alone(self, annotated, access, ffa) if not self.guests else _with_guests(self, annotated)
        return Page(span, self._owner(), *self, rule)

    def _owner(self) -> str:
        sides = [(HOST, self.host), (HYP, self.hyp), *((side.name, side.state) for side in self.guests)]
        claims = [name for name, state in sides if state in ("owned", "shared-owned")]
        return "none" if not claims else claims[0] if len(claims) == 1 else "conflict"


def _alone(sides: Sides, annotated: str | None, access: str | None, ffa: bool) -> str | None:
    """Which of the legal joint states it is where no guest has the page."""
    said = (sides.host, sides.hyp, annotated)
    if said == ("shared-owned", "no-page", None) and ffa and not sides.lent:
        return "J5"
    if said == ("no-page", "owned", None) and access == "r--":
        return "J9"
    return ALONE.get(said)


def _with_guests(sides: Sides, annotated: str | None) -> str | None:
    """Which it is where guests have it."""
    first, states = sides.guests[0], {side.state for side in sides.guests}
    one = len(sides.guests) == 1
    match sides.host, sides.hyp, annotated:
        case "shared-owned", "no-page", None if states == {"shared-borrowed"} and sides.lent == len(sides.guests):
            return "J6"
        case "no-page", "no-page", first.name if one and states == {"owned"}:
            return "J7"
        case "shared-borrowed", "no-page", None if one and states == {"shared-owned"}:
            return "J8"
    return None


def merged(pages: Iterable[Page]) -> Iterator[Page]:
    """Neighbours that differ in nothing but their addresses are one."""
    last: Page | None = None
    for page in pages:
        if last and last.span.end == page.span.start and _moved(last, last.span.size)[1:] == page[1:]:
            last = last._replace(span=Span(last.span.start, last.span.size + page.span.size))
            continue
        if last:
            yield last
        last = page
    if last:
        yield last


def _moved(page: Page, size: int) -> Page:
    """What the page `size` bytes further would say."""
    return page._replace(guests=tuple(side._replace(ipa=side.ipa + size) for side in page.guests))
