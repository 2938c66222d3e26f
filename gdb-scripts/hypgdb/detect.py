"""Which hypervisor a machine runs, and all there is to know of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
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
# What its debugger keeps of a CPU.
PARKED_TYPE = "hyp_image::debugger::parked::Parked"


@contextmanager
def machine() -> Iterator[States]:
    """The machine that gdb is connected to, whose memory can be read meanwhile."""
    with look(attached()) as states:
        yield states


@contextmanager
def look(target: Target) -> Iterator[States]:
    """What a machine runs."""
    files = program_files()
    bare = target.description is None
    record, parked = (rust_record(HYP_TYPE), rust_record(PARKED_TYPE)) if bare else (None, None)
    with target.reading():
        yield States(_system(target, files, record, parked))


def _system(target: Target, files: list[Elf], record: own.Record | None, parked: own.Record | None) -> System:
    hyp = next((elf for elf in files if elf.symbol("HYP")), None)
    used, doubt = own.compare_builds(target.memory, hyp) if hyp else (False, None)
    if target.description:
        found = own.system(target.description, target.memory, target.cpus, hyp if used else None)
        return replace(found, problems=[*found.problems, doubt]) if doubt else found
    if doubt and not used:
        raise Problem(doubt)
    if hyp and record:
        description = own.read(target.memory, hyp, record)
        cpus = own.uncovered(target.memory, hyp, parked, target.cpus) if parked else target.cpus
        found = own.system(description, target.memory, cpus, hyp)
        return replace(found, problems=[*found.problems, doubt]) if doubt else found
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


def rust_record(name: str) -> own.Record | None:
    """One of hyp's types, if gdb knows it."""
    try:
        return RustRecord(gdb.lookup_type(name))
    except gdb.error:
        return None
