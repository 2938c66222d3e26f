"""Run by gdb: everything the scripts say of the machine, as JSON in the form of the inspector's, to compare the two.

The environment names the file: HYPGDB_DOCUMENT.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypgdb import rows
from hypgdb.descriptors import attributes, bits
from hypgdb.detect import machine
from hypgdb.locks import lock
from hypgdb.walk import translate

if TYPE_CHECKING:
    from hypgdb.descriptors import Regime
    from hypgdb.joint import Page
    from hypgdb.states import States
    from hypgdb.system import Cpu, LockPlace, System, Vm
    from hypgdb.walk import Entry

Json = dict[str, Any]


def main() -> None:
    """Does it."""
    with machine() as states:
        found = document(states)
    Path(os.environ["HYPGDB_DOCUMENT"]).write_text(json.dumps(found))


def document(states: States) -> Json:
    """Everything."""
    system = states.system
    return {
        "problems": system.problems,
        "hypervisor": {
            "kind": system.kind,
            "release": system.release,
            "mode": system.mode,
            "page_state_in": system.layout.page_state_in,
            "owner_encoding": system.layout.owner_encoding,
        },
        "ram": [{"base": hex(region.start), "size": region.size} for region in system.ram],
        "sections": [{"name": name, "base": hex(span.start), "size": span.size} for name, span in system.sections],
        "regimes": [regime_document(regime) for regime in system.regimes],
        "entries": [
            entry_document(states, regime, entry) for regime in system.regimes for entry in states.entries[regime.name]
        ],
        "ranges": [range_document(page) for page in states.pages],
        "walks": [walk_document(states, regime, ia) for regime in system.regimes for ia in places(states, regime)],
        "locks": [lock_document(system, place) for place in sorted(system.locks, key=lambda place: place.pa)],
        "cpus": [cpu_document(cpu) for cpu in system.cpus],
        "vms": [vm_document(vm) for vm in system.vms],
    }


def regime_document(regime: Regime) -> Json:
    return {
        "name": regime.name,
        "stage": regime.stage,
        "root": hex(regime.root),
        "root_pages": regime.root_pages,
        "start_level": regime.start_level,
        "granule": 1 << regime.granule_shift,
        "ia_bits": regime.ia_bits,
        "oa_bits": regime.oa_bits,
        "lpa2": regime.lpa2,
    }


def entry_document(states: States, regime: Regime, entry: Entry) -> Json:
    row = rows.row(states, regime, entry)
    found: Json = {
        "regime": regime.name,
        "ia": hex(entry.ia),
        "size": entry.size,
        "level": entry.level,
        "kind": row.kind,
        "raw": hex(entry.raw),
        "state": row.state,
        "owner": row.owner,
    }
    named = states.owner_in(regime, entry)
    if named and named.ipa is not None:
        found["guest_ipa"] = hex(named.ipa)
    if row.kind in ("block", "page"):
        assert entry.oa is not None
        leaf = attributes(regime, entry.raw, entry.limits)
        found |= {"oa": hex(entry.oa), "sw": bits(entry.raw, 58, 55)}
        found |= {name: value for name, value in vars(leaf).items() if name != "execute_el0"}
        if leaf.execute_el0 != leaf.execute:
            found["execute_el0"] = leaf.execute_el0
    return found


def range_document(page: Page) -> Json:
    return {
        "pa": hex(page.span.start),
        "size": page.span.size,
        "owner": page.owner,
        "host": page.host,
        "hyp": page.hyp,
        "refcount": page.lent,
        "rule": page.rule,
        "guests": [{"handle": hex(side.handle), "ipa": hex(side.ipa), "state": side.state} for side in page.guests],
    }


def places(states: States, regime: Regime) -> list[int]:
    """Some input addresses: of the first sound entries of each kind and level, not at their beginning."""
    found: dict[tuple[int, str], int] = {}
    for entry in states.entries[regime.name]:
        if entry.problem:
            continue
        found.setdefault((entry.level, entry.kind), entry.ia + entry.size // 2 + 8)
    return list(found.values())


def walk_document(states: States, regime: Regime, ia: int) -> Json:
    steps = translate(regime, states.system.memory, ia)
    return {
        "regime": regime.name,
        "ia": hex(ia),
        "steps": [
            {
                "level": step.entry.level,
                "table": hex(step.table),
                "index": step.index,
                "at": hex(step.entry.at),
                "raw": hex(step.entry.raw),
            }
            for step in steps
        ],
    }


def lock_document(system: System, place: LockPlace) -> Json:
    found = lock(system, place)
    said: Json = {
        "pa": hex(place.pa),
        "owner_ticket": found.owner,
        "next_ticket": found.next,
        "held": found.held,
        "waiters": found.waiters,
        "candidates": found.candidates,
    }
    if found.holder is not None:
        said["holder"] = {"cpu": found.holder, "how": "recorded", "pc": hex(found.taker or 0)}
    return said


def cpu_document(cpu: Cpu) -> Json:
    registers = {name: hex(value) for name, value in cpu.registers.items() if name.endswith("_EL2")}
    return {"cpu": cpu.number, "el": cpu.level, "pc": hex(cpu["pc"]), "parked": cpu.parked, "registers": registers}


def vm_document(vm: Vm) -> Json:
    return {
        "handle": hex(vm.handle),
        "pa": None if vm.pa is None else hex(vm.pa),
        "protected": vm.protected,
        "vmid": vm.vmid,
        "root": None if vm.root is None else hex(vm.root),
        "vcpus": [
            {"number": vcpu.number, "pa": None if vcpu.pa is None else hex(vcpu.pa), "cpu": vcpu.cpu}
            for vcpu in vm.vcpus
        ],
    }


if __name__ == "__main__":
    main()
