"""Modules use only those before them, and gdb only where the package says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import hypgdb

FOLDER = Path(hypgdb.__file__).parent
PURE, WITH_GDB = (re.findall(r"`(\w+)`", part) for part in str(hypgdb.__doc__).split("Those need no gdb."))
ORDER = PURE + WITH_GDB


def imports(module: str) -> set[str]:
    """Everything that a module names in an import."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {name.name for name in node.names}
    return {name for name in found if name}


def test_the_list_is_complete() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_no_module_uses_a_later_one() -> None:
    for at, module in enumerate(ORDER):
        assert not imports(module) & set(ORDER[at:]), module


def test_most_needs_no_gdb() -> None:
    assert [module for module in PURE if "gdb" in imports(module)] == []
