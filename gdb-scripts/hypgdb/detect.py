"""Which hypervisor a machine runs, and all there is to know of it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import gdb

from . import own, pkvm
from .elf import Elf
from .memory import Problem
from .rust import RustRecord
from .states import States
from .target import Target, attached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .system import System

# hyp's main type, by which gdb knows the members of `HYP`.
HYP_TYPE = "hyp::init::Hyp"


@contextmanager
def machine() -> Iterator[States]:
    """The machine that gdb is connected to, whose memory can be read meanwhile."""
    with look(attached()) as states:
        yield states


@contextmanager
def look(target: Target) -> Iterator[States]:
    """What a machine runs."""
    files = program_files()
    record = hyp_record() if target.description is None else None
    with target.reading():
        yield States(_system(target, files, record))


def _system(target: Target, files: list[Elf], record: own.Record | None) -> System:
    hyp = next((elf for elf in files if elf.symbol("HYP")), None)
    if target.description:
        return own.system(target.description, target.memory, target.cpus, hyp)
    if hyp and record:
        return own.system(own.read(target.memory, hyp, record), target.memory, target.cpus, hyp)
    vmlinux = next((elf for elf in files if pkvm.is_pkvm(elf)), None)
    if vmlinux:
        return pkvm.system(vmlinux, target.memory, target.cpus)
    raise Problem(
        "no hypervisor is known here: give gdb hyp's ELF file or vmlinux with `file`, or use hyp's own channel"
    )


def program_files() -> list[Elf]:
    """The ELF files that gdb has symbols from."""
    found = []
    for objfile in gdb.objfiles():
        path = Path(objfile.filename or "")
        if objfile.is_valid() and path.is_file():
            found.append(_open(str(path), path.stat().st_mtime_ns))
    return found


@lru_cache(maxsize=8)
def _open(path: str, _modified: int) -> Elf:
    """Opened once, as long as it is the same."""
    return Elf(path)


def hyp_record() -> own.Record | None:
    """The type of hyp's variable, if gdb knows it."""
    try:
        return RustRecord(gdb.lookup_type(HYP_TYPE))
    except gdb.error:
        return None
