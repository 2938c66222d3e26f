"""What a hypervisor at EL2 has mapped, owns, shares and locks: `source gdb-scripts/hyp.py`, then `help hyp`."""


def hyp_load() -> None:
    """Makes gdb know the commands. All scripts share gdb's names, so that nothing else is left there."""
    import sys
    from pathlib import Path

    # `__file__` is that of the outermost script, where one sources another.
    here = Path(hyp_load.__code__.co_filename).resolve().parent
    sys.path.append(str(here))
    from hypgdb import commands

    commands.register()


hyp_load()
