"""What a hypervisor at EL2 has mapped, owns, shares and locks, inside gdb.

Modules in reading order; each uses only those before it:

- `memory`, `elf`, `btf`: where bytes come from
- `descriptors`, `walk`: translation tables, by the Arm architecture (DDI 0487, chapter D8)
- `system`: what was found, as plain data
- `states`: page states and joint owners
- `own`, `pkvm`: where the two hypervisors keep all that
- `registers`, `target`: the machine that gdb is connected to
- `detect`: which hypervisor it runs
- `rows`: all that as text
- `commands`: gdb's commands

Everything up to `pkvm` needs no gdb. Nothing is shared with the inspector: this is a second opinion.
"""
