"""Commands that end in the inspector: a snapshot for it, and its screen on the same machine."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import gdb

from . import saving
from .answers import nothing_behind
from .detect import look, program_files
from .memory import PAGE, Problem, Span
from .states import LEAVES, States
from .target import Core, all_registers, attached

# Where cargo builds it, beside these scripts.
BUILT = ("target/release/inspector", "target/debug/inspector")
VARIABLE = "INSPECTOR"


def snapshot(argument: str) -> list[str]:
    """`hyp snapshot FILE`."""
    if not argument.strip():
        raise Problem("a file, as in: hyp snapshot machine.snap")
    path = Path(argument.strip()).expanduser()
    target = attached()
    if isinstance(target, Core):
        raise Problem("this is a file already: copy it")
    registers = all_registers()
    with look(target) as states:
        system, problems = states.system, list[str]()
        memory = []
        for span in _kept(states):
            try:
                memory.append((span.start, target.memory.read(span.start, span.size)))
            except Problem as problem:
                problems.append(f"! {problem}")
        contents = saving.Contents(
            registers,
            [(region.start, region.size) for region in target.ram],
            memory,
            system.physvirt_offset,
            target.description.text if target.description else None,
        )
    try:
        data = saving.encode(contents)
        saving.write(path, data)
    except OSError as error:
        # Without the name of the file under way, which is nothing to the user.
        raise Problem(f"{path}: cannot write it: {error.strerror}") from error
    except ValueError as error:
        raise Problem(f"{path}: cannot write it: {error}") from error
    image = f" --image {system.elf.path}" if system.elf and target.description is None else ""
    return [*problems, f"{path}: {len(data)} bytes; open it with: inspector tui {path}{image}"]


def _kept(states: States) -> list[Span]:
    """All RAM that EL2 maps, which has its tables in it, and what else is needed to know the kernel; in order."""
    ram = states.system.ram
    pages = set[int]()
    for entry in states.entries["hyp-s1"]:
        if entry.oa is not None and entry.kind in LEAVES:
            pages.update(range(entry.oa, entry.oa + entry.size, PAGE))
    for span in states.system.kept:
        pages.update(range(span.start // PAGE * PAGE, span.end, PAGE))
    for regime in states.system.regimes:
        pages.update(range(regime.root // PAGE * PAGE, regime.root + 8 * regime.root_entries, PAGE))
        pages.update(entry.at // PAGE * PAGE for entry in states.entries[regime.name])
    spans: list[Span] = []
    for page in sorted(page for page in pages if any(page in region for region in ram)):
        if spans and spans[-1].end == page:
            spans[-1] = Span(spans[-1].start, spans[-1].size + PAGE)
        else:
            spans.append(Span(page, PAGE))
    return spans


def tui(argument: str) -> list[str]:
    """`hyp tui`."""
    nothing_behind(argument)
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection) or not connection.details:
        raise Problem("gdb is not connected to a gdb server: of a snapshot say `inspector tui FILE` in a shell")
    server, kind = connection.details, connection.type
    images = [word for path in dict.fromkeys(elf.path for elf in program_files()) for word in ("--image", path)]
    line = [str(_program()), "tui", target_name(server), *images]
    gdb.execute("disconnect", to_string=True)
    try:
        gdb.execute(f"shell {shlex.join(line)}")
    finally:
        gdb.execute(f"target {kind} {server}")
    return []


def target_name(server: str) -> str:
    """What the inspector calls a server of gdb's: `tcp:` is left out, and sockets are `unix:`."""
    server = server.removeprefix("tcp:")
    return f"unix:{server}" if "/" in server and not server.startswith("unix:") else server


def _program() -> Path:
    """The inspector: by the environment, of the shell, or built beside these scripts."""
    named = os.environ.get(VARIABLE) or shutil.which("inspector")
    if named:
        return Path(named)
    root = Path(__file__).resolve().parents[2]
    for built in BUILT:
        if (root / built).is_file():
            return root / built
    raise Problem(f"there is no inspector: build it with `cargo build --release`, or name it in {VARIABLE}")
