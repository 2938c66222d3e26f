//! The story of a host trap as a JSON object.
//!
#![doc = include_str!("story.md")]

use super::{hex, hex_or_null, sides, text_or_null, walk_step};
use crate::abort::choice::{Candidate, Choice, Verdict};
use crate::abort::{
    Branch, Call, Cause, Changes, Comparison, Fault, LockStep, Memory, Outcome, OwnerChange, Place,
    Road, Step, Story, Walk, Word, Write,
};
use crate::addr::Span;
use crate::arch::esr;
use crate::model::Tickets;
use crate::view;
use serde_json::{Map, Value, json};

/// A story: fields of the trap first, then what was done, then how it ended.
pub(in crate::cli) fn story(story: &Story) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("cpu", story.cpu.into());
    put("pc", hex(story.host.pc));
    put("symbol", story.host.symbol.as_deref().into());
    put("from_el", story.from.into());
    put("what", esr::describe(story.esr).into());
    put("esr", hex(story.esr));
    put("esr_fields", esr_fields(story.esr));
    match &story.cause {
        Cause::Abort(cause) => fault(&mut object, cause),
        Cause::Call(cause) => call(&mut object, cause),
    }
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("steps", story.steps.iter().map(step).collect());
    put("writes", story.writes.iter().map(write).collect());
    put("changes", changes(&story.changes));
    put("outcome", story.outcome.name().into());
    put("result", outcome(&story.outcome));
    put("after", story.after.as_ref().map_or(Value::Null, place));
    put("instructions", story.instructions.into());
    put("road", road(&story.road));
    put("problems", story.problems.as_slice().into());
    object.into()
}

fn place(place: &Place) -> Value {
    json!({"pc": hex(place.pc), "symbol": place.symbol})
}

fn span(span: Span) -> Value {
    json!({"base": hex(span.start), "size": span.size})
}

fn esr_fields(value: u64) -> Value {
    let fields = esr::fields(value);
    let fields = fields.iter().map(|field| {
        json!({"name": field.name, "bits": field.bits(), "value": hex(field.value), "meaning": field.meaning})
    });
    fields.collect()
}

fn fault(object: &mut Map<String, Value>, fault: &Fault) {
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("far", hex(fault.far));
    put("hpfar", hex(fault.hpfar));
    put("ipa", hex_or_null(fault.ipa));
    put("memory", memory(&fault.memory));
    put("page", sides(fault.page.as_ref()));
    put("walk", fault.walk.as_ref().map_or(Value::Null, walk));
    put("choice", fault.choice.as_ref().map_or(Value::Null, choice));
}

fn memory(memory: &Memory) -> Value {
    let object = |kind: &str, range: Option<Span>| {
        json!({
            "kind": kind,
            "base": hex_or_null(range.map(|range| range.start)),
            "size": range.map(|range| range.size),
            "owner": null,
            "section": null,
        })
    };
    match memory {
        Memory::Ram { region } => object("ram", Some(*region)),
        Memory::Taken {
            region,
            owner,
            section,
        } => {
            let mut taken = object("taken", Some(*region));
            taken["owner"] = owner.to_string().into();
            taken["section"] = section.as_deref().into();
            taken
        }
        Memory::Mmio { gap, owner } => {
            let mut mmio = object("mmio", Some(*gap));
            mmio["owner"] = text_or_null(*owner);
            mmio
        }
        Memory::Beyond => object("beyond", None),
        Memory::Unknown => object("unknown", None),
    }
}

fn walk(walk: &Walk) -> Value {
    let steps = walk.translation.steps.iter();
    let last = walk.translation.steps.last();
    let entry = walk.entry.as_ref();
    json!({
        "regime": walk.regime,
        "ia": hex(walk.translation.ia),
        "result": view::end_name(&walk.translation.end),
        "level": last.map(|step| step.level),
        "size": last.map(|step| step.size),
        "state": text_or_null(entry.and_then(|entry| entry.state)),
        "owner": text_or_null(entry.and_then(|entry| entry.owner)),
        "steps": steps.map(|step| walk_step(&walk.decode, step)).collect::<Value>(),
    })
}

fn choice(choice: &Choice) -> Value {
    let candidate = |candidate: &Candidate| {
        let verdict = match candidate.verdict {
            Verdict::Taken => "taken",
            Verdict::NoLeaf => "no-leaf",
            Verdict::LeavesRegion => "leaves-region",
        };
        json!({
            "level": candidate.level,
            "base": hex(candidate.range.start),
            "size": candidate.range.size,
            "verdict": verdict,
        })
    };
    json!({
        "hole": span(choice.hole),
        "hole_level": choice.hole_level,
        "region": span(choice.region),
        "candidates": choice.candidates.iter().map(candidate).collect::<Value>(),
        "range": choice.range().map(span),
        "level": choice.level(),
        "seen": choice.seen.map(span),
    })
}

fn call(object: &mut Map<String, Value>, call: &Call) {
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("id", hex(call.id));
    put("name", call.name.as_deref().into());
    put(
        "arguments",
        call.arguments.iter().map(|word| hex(*word)).collect(),
    );
    put("status", call.status.map(|status| status as i64).into());
    put("return", call.result.into());
    put("pages", call.pages.iter().map(owner_change).collect());
}

fn step(step: &Step) -> Value {
    let at = step.place.as_ref();
    let lock = |lock: &LockStep| {
        let mut object = tickets(lock.tickets);
        object["name"] = lock.name.as_str().into();
        object["holder"] = lock.holder.into();
        object
    };
    json!({
        "stage": step.stage.to_string(),
        "pc": hex_or_null(at.map(|at| at.pc)),
        "symbol": at.and_then(|at| at.symbol.as_deref()),
        "text": step.text,
        "lock": step.lock.as_ref().map(lock),
    })
}

fn tickets(tickets: Tickets) -> Value {
    json!({"owner_ticket": tickets.owner, "next_ticket": tickets.next})
}

fn write(write: &Write) -> Value {
    let side = |word: &Option<Word>| {
        word.as_ref().map(|word| {
            let descriptor = &word.descriptor;
            json!({
                "raw": hex(descriptor.raw),
                "kind": view::shape_name(descriptor.shape),
                "oa": hex_or_null(descriptor.oa),
                "state": text_or_null(word.state),
                "owner": text_or_null(word.owner),
            })
        })
    };
    json!({
        "regime": write.regime,
        "level": write.level,
        "ia": hex(write.ia),
        "size": write.size,
        "at": hex(write.at),
        "old": side(&write.old),
        "new": side(&write.new),
    })
}

fn owner_change(change: &OwnerChange) -> Value {
    json!({
        "pa": hex(change.pa.start),
        "size": change.pa.size,
        "before": sides(change.before.as_ref()),
        "after": sides(change.after.as_ref()),
    })
}

fn changes(changes: &Changes) -> Value {
    let pages = |pages: &[u64]| -> Value { pages.iter().map(|pa| hex(*pa)).collect() };
    let counts = changes.counts.iter().map(|count| {
        json!({
            "pool": count.pool,
            "pa": hex(count.pa),
            "before": count.before,
            "after": count.after,
        })
    });
    let locks = changes.locks.iter().map(|lock| {
        json!({
            "name": lock.name,
            "before": tickets(lock.before),
            "after": tickets(lock.after),
        })
    });
    json!({
        "owners": changes.owners.iter().map(owner_change).collect::<Value>(),
        "tables_linked": pages(&changes.tables_linked),
        "tables_freed": pages(&changes.tables_freed),
        "refcounts": counts.collect::<Value>(),
        "locks": locks.collect::<Value>(),
    })
}

/// What there is to say of an outcome besides its name.
fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Mapped { leaf, level } => {
            json!({"ia": hex(leaf.start), "size": leaf.size, "level": level})
        }
        Outcome::AlreadyMapped { leaf, by } => {
            let start = hex_or_null(leaf.map(|leaf| leaf.start));
            json!({"ia": start, "size": leaf.map(|leaf| leaf.size), "by": by})
        }
        Outcome::Refused { exception, branch } => json!({
            "vector": hex_or_null(exception.vector),
            "what": exception.what(),
            "esr": hex_or_null(exception.esr),
            "far": hex_or_null(exception.far),
            "elr": hex_or_null(exception.elr),
            "branch": branch.as_ref().map(self::branch),
        }),
        Outcome::Panic { at } => place(at),
        Outcome::GaveUp {
            branch: Some(branch),
        } => self::branch(branch),
        Outcome::Left { to } => place(to),
        Outcome::GaveUp { branch: None } | Outcome::Emulated | Outcome::Returned => Value::Null,
    }
}

fn branch(branch: &Branch) -> Value {
    json!({
        "pc": hex(branch.at.pc),
        "symbol": branch.at.symbol,
        "instruction": branch.instruction,
        "to": place(&branch.to),
        "taken": branch.taken,
        "function": branch.function,
        "source": branch.source,
    })
}

fn road(road: &Road) -> Value {
    let missing = road.missing.iter();
    let missing = missing.map(|stop| json!({"function": stop.function, "reason": stop.reason}));
    json!({
        "entry": road.entry.as_ref().map(place),
        "functions": road.functions.iter().map(place).collect::<Value>(),
        "exit": road.exit.as_ref().map(place),
        "missing": missing.collect::<Value>(),
        "writes_by": match road.writes {
            Comparison::UnderLock => "under-lock",
            Comparison::EntryToEnd => "entry-to-end",
        },
        "stepped": road.stepped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::testing::{gave_up, mapped, place, refused, shared};
    use std::collections::BTreeSet;

    /// Every field by its path; those of an array's elements stand below the array's name.
    fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(elements) => {
                for element in elements {
                    paths(element, path, found);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = match path {
                        "" => name.clone(),
                        _ => format!("{path}.{name}"),
                    };
                    found.insert(path.clone());
                    paths(value, &path, found);
                }
            }
            _ => {}
        }
    }

    /// States of pages are told of `page` once.
    fn is_told_elsewhere(path: &str) -> bool {
        let mut sides = [
            "pages.before.",
            "pages.after.",
            "page.guests.",
            "changes.owners.",
        ]
        .iter();
        sides.any(|start| path.starts_with(start))
    }

    /// A story of each kind and end.
    fn stories() -> Vec<Story> {
        let ends = [
            Outcome::AlreadyMapped {
                leaf: None,
                by: None,
            },
            Outcome::Emulated,
            Outcome::Panic {
                at: place(0x40_4020_1000, "panic"),
            },
            Outcome::Left {
                to: place(0x40_4020_2000, "enter_guest"),
            },
        ];
        let ended = |outcome| Story {
            outcome,
            ..refused()
        };
        let mut stories = vec![mapped(), refused(), gave_up(), shared()];
        stories.extend(ends.map(ended));
        stories
    }

    #[test]
    fn every_field_is_documented_and_nothing_else() {
        let text = include_str!("story.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows = rows.filter_map(|row| row.split_once("` | "));
        let documented: BTreeSet<String> = rows.map(|(path, _)| path.to_owned()).collect();
        let mut found: BTreeSet<String> = ["schema", "complete", "target", "aborts"]
            .map(str::to_owned)
            .into();
        for story in stories() {
            paths(&super::story(&story), "", &mut found);
        }
        for document in [
            include_str!("../../../tests/cli/golden/abort.json"),
            include_str!("../../../tests/cli/golden/abort.jsonl"),
        ] {
            for part in serde_json::Deserializer::from_str(document).into_iter() {
                let mut part: Value = part.expect("it is JSON");
                paths(&part["aborts"].take(), "", &mut found);
                paths(&part, "", &mut found);
            }
        }
        found.retain(|path| !is_told_elsewhere(path));
        let missing: Vec<_> = found.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&found).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "missing {missing:?}, stale {stale:?}"
        );
    }
}
