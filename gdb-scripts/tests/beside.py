"""Run by gdb: prints what loading the scripts adds to it, behind `+`, and what it takes away, behind `-`."""

from __future__ import annotations

import sys
from pathlib import Path

import gdb

SHOWN = (
    "help all",
    "help function",
    "info pretty-printer",
    "info type-printers",
    "info frame-filter",
    "info unwinder",
    "info xmethod",
    "show language",
    "show prompt",
)


def surroundings() -> set[str]:
    said = [line for command in SHOWN for line in gdb.execute(command, to_string=True).splitlines()]
    names = [f"name {name}" for name in vars(sys.modules["__main__"])]
    return {*said, *names, f"prompt hook {gdb.prompt_hook}"}


def main() -> None:
    """Does it."""
    before = surroundings()
    gdb.execute(f"source {Path(__file__).resolve().parents[1] / 'hyp.py'}")
    after = surroundings()
    for sign, lines in (("+", after - before), ("-", before - after)):
        for line in sorted(lines):
            print(sign, line.strip())


if __name__ == "__main__":
    main()
