"""What a hypervisor at EL2 has mapped, owns, shares and locks: `source gdb-scripts/hyp.py`, then `help hyp`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hypgdb import commands

commands.register()
