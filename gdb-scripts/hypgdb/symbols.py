"""Names of EL2's functions, as people say them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .elf import Elf, Symbol

# The prefix of everything of EL2's in Linux's symbol table.
EL2 = "__kvm_nvhe_"
# The last part of a mangled path of Rust's, before the hash.
MANGLED = re.compile(rb"\d([A-Za-z_]\w*?)17h[0-9a-f]{16}E\0")


def find(elf: Elf, name: str) -> Symbol | None:
    """The symbol that is meant: Linux's without its prefix, any as it stands, or Rust's by the end of its path."""
    found = elf.symbol(EL2 + name) or elf.symbol(name)
    if found:
        return found
    # Mangled names are part of each path with their length before them; the hash is one more part, of 17 letters.
    mangled = re.compile(rb"\0(_\w[^\0]*[^\d]%d%b17h[0-9a-f]{16}E)\0" % (len(name), re.escape(name.encode())))
    whole = mangled.search(elf.names)
    return elf.symbol(whole[1].decode()) if whole else None


def names(elf: Elf) -> set[str]:
    """All that `find` finds, as far as they are functions' or variables' of EL2."""
    linux = re.findall(rb"\0%b([\w.]+)(?=\0)" % EL2.encode(), elf.names)
    rust = () if linux else MANGLED.findall(elf.names)
    return {name.decode() for name in (*linux, *rust)}
