//! The things of a capture as JSON objects: names and forms of the contract.

mod story;

pub(super) use story::story;

use crate::arch::regime::{Regime, Stage};
use crate::arch::walk::{Attributes, End, Step};
use crate::arch::{esr, fields};
use crate::model::{
    Cpu, Entry, Frame, HolderSource, Hypervisor, HypervisorKind, JointOwner, Lock, OwnerRange,
    Pool, RegimeCapture, Section, Source, System, Tickets, Vm, VmPages, VmState,
};
use crate::view::{self, Abort, PageView, Run, TRANSLATION_REGISTERS, WalkView};
use serde_json::{Map, Value, json};

fn hex(value: u64) -> Value {
    format!("{value:#x}").into()
}

fn hex_or_null(value: Option<u64>) -> Value {
    value.map_or(Value::Null, hex)
}

fn text_or_null(value: Option<impl ToString>) -> Value {
    value.map_or(Value::Null, |value| value.to_string().into())
}

pub(super) fn hypervisor(hypervisor: &Hypervisor) -> Value {
    let kind = match hypervisor.kind {
        HypervisorKind::Hyp => "hyp",
        HypervisorKind::Pkvm => "pkvm",
        HypervisorKind::None => "none",
    };
    json!({
        "kind": kind,
        "release": hypervisor.release,
        "mode": hypervisor.mode,
        "page_state_in": hypervisor.page_state_in,
        "owner_encoding": hypervisor.owner_encoding,
    })
}

pub(super) fn regimes(system: &System) -> Value {
    system.regimes.iter().map(regime_object).collect()
}

fn regime_object(capture: &RegimeCapture) -> Value {
    let regime = &capture.regime;
    json!({
        "name": capture.name,
        "stage": if regime.stage == Stage::Two { 2 } else { 1 },
        "root": hex(regime.root),
        "root_pages": regime.root_pages,
        "start_level": regime.start_level,
        "granule": regime.granule.bytes(),
        "ia_bits": regime.ia_bits,
        "oa_bits": regime.oa_bits,
        "lpa2": regime.lpa2,
    })
}

/// A run of `list`.
pub(super) fn run(system: &System, run: &Run) -> Value {
    entry(run.regime(system), run.entry(system), run.size, run.count)
}

/// An entry, or `count` of them that say the same and cover `size` bytes.
fn entry(regime: &RegimeCapture, entry: &Entry, size: u64, count: usize) -> Value {
    let leaf = &entry.leaf;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("regime", regime.name.as_str().into());
    put("ia", hex(leaf.ia));
    put("size", size.into());
    put("count", count.into());
    put("level", leaf.level.into());
    put("kind", entry.kind.to_string().into());
    put("raw", hex(leaf.raw));
    put("oa", hex_or_null(leaf.oa));
    attributes(&mut object, leaf.attributes);
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("sw", leaf.sw.into());
    put("state", text_or_null(entry.state));
    put("owner", text_or_null(entry.owner));
    if let Some(ipa) = entry.guest_ipa {
        put("guest_ipa", hex(ipa));
    }
    put("problem", text_or_null(leaf.problem.as_ref()));
    object.into()
}

fn attributes(object: &mut Map<String, Value>, attributes: Option<Attributes>) {
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    let a = attributes;
    put("read", a.map(|a| a.read).into());
    put("write", a.map(|a| a.write).into());
    put("execute", a.map(|a| a.execute).into());
    if let Some(a) = a.filter(|a| a.execute != a.execute_el0) {
        put("execute_el0", a.execute_el0.into());
    }
    put("memory", text_or_null(a.map(|a| a.memory)));
    put("shareability", text_or_null(a.map(|a| a.shareability)));
    put("af", a.map(|a| a.af).into());
    put("contiguous", a.map(|a| a.contiguous).into());
}

/// A row of `owners`.
pub(super) fn owner_range(range: &OwnerRange) -> Value {
    let mut object = Map::new();
    object.insert("pa".to_owned(), hex(range.pa.start));
    object.insert("size".to_owned(), range.pa.size.into());
    if let Value::Object(sides) = sides(Some(range)) {
        object.extend(sides);
    }
    object.into()
}

/// What the sides of a page say; all null when it is not RAM.
fn sides(range: Option<&OwnerRange>) -> Value {
    let owner = range
        .map(|range| range.owner)
        .filter(|owner| *owner != JointOwner::Unknown);
    let guests: Vec<Value> = range
        .iter()
        .flat_map(|range| &range.guests)
        .map(|guest| {
            json!({
                "handle": hex(guest.handle),
                "ipa": hex(guest.ipa),
                "state": guest.state.to_string(),
            })
        })
        .collect();
    json!({
        "owner": text_or_null(owner),
        "host": text_or_null(range.and_then(|range| range.host)),
        "hyp": text_or_null(range.and_then(|range| range.hyp)),
        "guests": guests,
        "refcount": range.and_then(|range| range.refcount),
        "rule": range.and_then(|range| range.rule),
    })
}

pub(super) fn lock(lock: &Lock) -> Value {
    let holder = lock.holder.as_ref().map(|holder| {
        let how = match holder.how {
            HolderSource::Recorded => "recorded",
            HolderSource::Inferred => "inferred",
        };
        let mut object = json!({
            "cpu": holder.cpu,
            "how": how,
            "pc": hex_or_null(holder.pc),
            "symbol": holder.symbol,
        });
        if let Some(by) = &holder.by {
            object["by"] = by.as_str().into();
        }
        object
    });
    let tickets = lock.tickets;
    json!({
        "name": lock.name,
        "symbol": lock.symbol,
        "pa": hex(lock.pa),
        "owner_ticket": tickets.map(|tickets| tickets.owner),
        "next_ticket": tickets.map(|tickets| tickets.next),
        "held": tickets.map(Tickets::held),
        "waiters": tickets.map(Tickets::waiters),
        "holder": holder,
    })
}

pub(super) fn cpu(system: &System, cpu: &Cpu) -> Value {
    let registers: Map<String, Value> = TRANSLATION_REGISTERS
        .iter()
        .map(|name| ((*name).to_owned(), hex_or_null(cpu.registers.get(name))))
        .collect();
    let inlines: Vec<Value> = cpu.inlines.iter().map(frame).collect();
    let calls: Vec<Value> = cpu.calls.iter().map(frame).collect();
    let vcpu = cpu
        .vcpu
        .map(|(handle, number)| json!({"handle": hex(handle), "number": number}));
    json!({
        "cpu": cpu.number,
        "el": cpu.el,
        "pc": hex_or_null(cpu.pc),
        "symbol": cpu.symbol,
        "source": source(cpu.source.as_ref()),
        "inlines": inlines,
        "stage2": cpu.stage2,
        "vcpu": vcpu,
        "calls": calls,
        "abort": view::abort(system, cpu).as_ref().map(abort),
        "registers": registers,
    })
}

fn frame(frame: &Frame) -> Value {
    json!({
        "pc": hex(frame.pc),
        "symbol": frame.symbol,
        "source": source(frame.source.as_ref()),
        "inlined": frame.inlined,
    })
}

fn source(source: Option<&Source>) -> Value {
    source.map_or(
        Value::Null,
        |source| json!({"file": source.file, "line": source.line}),
    )
}

fn abort(abort: &Abort<'_>) -> Value {
    let now = abort.now.as_ref();
    json!({
        "what": esr::describe(abort.esr),
        "esr": hex(abort.esr),
        "far": hex_or_null(abort.far),
        "hpfar": hex_or_null(abort.hpfar),
        "ipa": hex_or_null(abort.ipa),
        "pc": hex_or_null(abort.from),
        "symbol": abort.symbol,
        "regime": now.map(|walk| walk.regime.name.as_str()),
        "result": now.map(|walk| view::end_name(&walk.translation.end)),
    })
}

pub(super) fn vm(vm: &Vm) -> Value {
    let vcpus: Vec<Value> = vm
        .vcpus
        .iter()
        .map(|vcpu| json!({"number": vcpu.number, "pa": hex_or_null(vcpu.pa), "cpu": vcpu.cpu}))
        .collect();
    let pages = |pages: VmPages| {
        json!({
            "owned": pages.owned,
            "shared_owned": pages.shared,
            "shared_borrowed": pages.borrowed,
            "poisoned": pages.poisoned,
        })
    };
    json!({
        "handle": hex(vm.handle),
        "protected": vm.protected,
        "state": text_or_null(Some(vm.state).filter(|state| *state != VmState::Unknown)),
        "vmid": vm.vmid,
        "pa": hex_or_null(vm.pa),
        "vcpus": vcpus,
        "pages": vm.pages.map(pages),
    })
}

/// What stands in `info` before its facts.
pub(super) fn info(system: &System) -> Value {
    let memory = |start: u64, size: u64| json!({"base": hex(start), "size": size});
    let section = |section: &Section| json!({"name": section.name, "base": hex(section.pa.start), "size": section.pa.size});
    let pool = |pool: &Pool| json!({"name": pool.name, "base": hex(pool.pages.start), "size": pool.pages.size});
    json!({
        "hypervisor": hypervisor(&system.hypervisor),
        "cpus": system.cpus.len(),
        "regimes": regimes(system),
        "ram": system.ram.iter().map(|ram| memory(ram.start, ram.size)).collect::<Value>(),
        "sections": system.sections.iter().map(section).collect::<Value>(),
        "pools": system.pools.iter().map(pool).collect::<Value>(),
        "problems": view::problems(system),
    })
}

pub(super) fn facts(system: &System) -> Vec<Value> {
    let fact = |fact: &crate::model::Fact| json!({"what": fact.what, "value": fact.value, "source": fact.source});
    system.facts.iter().map(fact).collect()
}

/// What stands in `page` before its mappings.
pub(super) fn page(system: &System, page: &PageView) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("pa", hex(page.pa.start));
    put("size", page.pa.size.into());
    put("ram", page.owner.is_some().into());
    if let Value::Object(sides) = sides(page.owner.as_ref()) {
        object.extend(sides);
    }
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    // A page that a pool hands out has the pool's count; any other keeps that of its row in `owners`.
    if let Some((_, count)) = &page.pool {
        put("refcount", (*count).into());
    }
    put(
        "pool",
        page.pool.as_ref().map(|(pool, _)| pool.as_str()).into(),
    );
    put("section", page.section.as_deref().into());
    let table = page.table.map(|table| {
        json!({
            "regime": system.regimes[table.regime].name,
            "level": table.level,
            "ia": hex(table.ia),
            "parent": hex_or_null(table.parent),
            "used": table.used,
        })
    });
    put("table", table.into());
    put(
        "locks",
        page.locks
            .iter()
            .map(|at| lock(&system.locks[*at]))
            .collect(),
    );
    object.into()
}

/// Every entry that speaks of the page; `page_ia` is the input address of the page itself.
pub(super) fn mappings(system: &System, page: &PageView) -> Vec<Value> {
    let mapping = |mapping: &view::Mapping| {
        let found = mapping.entry(system);
        let mut object = entry(&system.regimes[mapping.regime], found, found.leaf.size, 1);
        object["at"] = hex(found.leaf.at);
        object["page_ia"] = hex(mapping.ia);
        object
    };
    page.mappings.iter().map(mapping).collect()
}

/// What stands in `walk` before its steps.
pub(super) fn walk(walk: &WalkView<'_>) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    let end = &walk.translation.end;
    let (oa, size, found, problem) = match end {
        End::Mapped {
            oa,
            size,
            attributes,
        } => (Some(*oa), Some(*size), Some(*attributes), None),
        End::Hole { size, .. } | End::Invalid { size, .. } => (None, Some(*size), None, None),
        End::Reserved { problem } | End::Unreadable { problem } => {
            (None, None, None, Some(problem))
        }
        End::OutOfRange { .. } => (None, None, None, None),
    };
    put("regime", walk.regime.name.as_str().into());
    put("ia", hex(walk.translation.ia));
    put("result", view::end_name(end).into());
    put("oa", hex_or_null(oa));
    put("size", size.into());
    attributes(&mut object, found);
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put(
        "state",
        text_or_null(walk.entry.and_then(|entry| entry.state)),
    );
    put(
        "owner",
        text_or_null(walk.entry.and_then(|entry| entry.owner)),
    );
    if let Some(ipa) = walk.entry.and_then(|entry| entry.guest_ipa) {
        put("guest_ipa", hex(ipa));
    }
    put("problem", text_or_null(problem));
    object.into()
}

pub(super) fn steps(walk: &WalkView<'_>) -> Vec<Value> {
    walk.translation
        .steps
        .iter()
        .map(|step| walk_step(&walk.regime.regime, step))
        .collect()
}

fn walk_step(regime: &Regime, step: &Step) -> Value {
    let word = step.descriptor.as_ref();
    let fields: Option<Vec<Value>> = word.map(|word| {
        fields::descriptor(regime, step.level, word.raw)
            .iter()
            .map(|field| {
                json!({
                    "name": field.name,
                    "bits": field.bits(),
                    "value": hex(field.value),
                    "meaning": field.meaning,
                })
            })
            .collect()
    });
    json!({
        "level": step.level,
        "table": hex(step.table),
        "index": step.index,
        "at": hex(step.at),
        "size": step.size,
        "raw": hex_or_null(word.map(|word| word.raw)),
        "kind": word.map_or("unreadable", |word| view::shape_name(word.shape)),
        "oa": hex_or_null(word.and_then(|word| word.oa)),
        "problem": text_or_null(word.and_then(|word| word.fault)),
        "fields": fields,
    })
}
