"""What a hypervisor at EL2 has mapped, owns, shares and locks, inside gdb.

Modules in reading order; each uses only those before it, which a test enforces:

- `memory`: physical memory, wherever it is
- `elf`: symbols, sections and notes of a file
- `descriptors`, `walk`: translation tables, by the Arm architecture (DDI 0487, chapter D8)
- `system`: what was found, as plain data
- `btf`: the kernel's types
- `joint`, `states`: page states, and joint owners
- `locks`: ticket locks, and who holds them
- `symbols`, `syndrome`: names of EL2's functions, and why a CPU came there
- `own`, `pkvm`: where the two hypervisors keep all that
- `arguments`, `rows`: what stands behind a command, and its answer as text
- `saving`: snapshots

Those need no gdb. These do:

- `target`: the machine that gdb is connected to
- `rust`: Rust's types, by gdb
- `detect`: which hypervisor the machine runs
- `answers`, `running`, `values`, `inspector`: what commands and functions do
- `printers`: pretty-printers
- `commands`: what gdb is told of

Nothing is shared with the inspector: this is a second opinion.
"""
