//! From a question to its answer.

use super::arguments::{Ask, Format, List, Owners, Walk};
use super::document::Document;
use super::{json, text};
use crate::model::System;
use crate::view::{self, OwnerFilter, RunFilter, Table};
use anyhow::bail;
use std::io::{self, Write};

/// What a command prints.
pub(super) struct Answer {
    /// For scripts.
    document: Document,
    /// For people: tables, each under its heading.
    tables: Vec<(String, Table)>,
    /// For people: what the tables cannot say. Documents have it in a field.
    note: Option<String>,
    complete: bool,
}

impl Answer {
    /// Writes it.
    pub(super) fn write(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => self.document.write_json(out),
            Format::Jsonl => self.document.write_jsonl(out),
            Format::Text => self.write_text(out),
        }
    }

    /// Whether everything that was asked for is known.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// A sentence that belongs beside the tables.
    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (at, (heading, table)) in self.tables.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            if !heading.is_empty() {
                writeln!(out, "{heading}")?;
            }
            text::write_table(table, out)?;
        }
        Ok(())
    }
}

/// Answers from a capture.
pub(super) fn answer(system: &System, target: &str, ask: &Ask) -> anyhow::Result<Answer> {
    let context = Context { system, target };
    let (document, tables) = match ask {
        Ask::Info(_) => context.info(),
        Ask::List(list) => context.list(list)?,
        Ask::Owners(owners) => context.owners(owners),
        Ask::Walk(walk) => context.walk(walk)?,
        Ask::Page(page) => context.page(page.pa),
        Ask::Locks(_) => context.locks(),
        Ask::Cpus(_) => context.cpus(),
        Ask::Vms(_) => context.vms(),
    };
    let note = match ask {
        Ask::Vms(_) => system.no_vms.clone(),
        Ask::Locks(_) => system.no_locks.clone(),
        _ => None,
    };
    let complete = document.is_complete();
    Ok(Answer {
        document,
        tables,
        note,
        complete,
    })
}

type Parts = (Document, Vec<(String, Table)>);

/// What every answer is made from.
struct Context<'a> {
    system: &'a System,
    target: &'a str,
}

impl Context<'_> {
    fn document(&self, schema: &str, name: &'static str) -> Document {
        // Less may be known of locks than of the rest.
        let complete = self.system.complete && (name != "locks" || self.system.no_locks.is_none());
        Document::new(schema, complete, self.target, name)
    }

    fn info(&self) -> Parts {
        let document = self
            .document("info", "facts")
            .fields(json::info(self.system))
            .elements(json::facts(self.system));
        (document, vec![untitled(view::info_table(self.system))])
    }

    fn list(&self, list: &List) -> anyhow::Result<Parts> {
        if let Some(name) = &list.regime {
            self.regime(name)?;
        }
        let filter = RunFilter {
            regime: list.regime.clone(),
            no_merge: list.no_merge,
            range: list.range,
            pa: list.pa,
            owner: list.owner,
            state: list.state,
            kind: list.kind,
        };
        let runs = view::runs(self.system, &filter);
        let document = self
            .document("list", "entries")
            .field("hypervisor", json::hypervisor(&self.system.hypervisor))
            .field("regimes", json::regimes(self.system))
            .elements(runs.iter().map(|run| json::run(self.system, run)));
        let tables = runs
            .chunk_by(|a, b| a.regime == b.regime)
            .map(|runs| {
                let mut table = view::runs_table(self.system, runs);
                // The heading says it.
                table.titles.remove(0);
                for row in &mut table.rows {
                    row.remove(0);
                }
                (runs[0].regime(self.system).name.clone(), table)
            })
            .collect();
        Ok((document, tables))
    }

    fn owners(&self, owners: &Owners) -> Parts {
        let filter = OwnerFilter {
            pa: owners.pa,
            owner: owners.owner,
        };
        let ranges = view::owners(self.system, &filter);
        let document = self
            .document("owners", "ranges")
            .elements(ranges.iter().map(json::owner_range));
        (document, vec![untitled(view::owners_table(&ranges))])
    }

    fn walk(&self, walk: &Walk) -> anyhow::Result<Parts> {
        self.regime(&walk.regime)?;
        let Some(found) = view::walk(self.system, &walk.regime, walk.address) else {
            bail!("{}: {} cannot be walked", self.target, walk.regime);
        };
        let document = self
            .document("walk", "steps")
            .fields(json::walk(&found))
            .elements(json::steps(&found));
        let mut heading = format!(
            "{} {:#x}: {}",
            walk.regime, walk.address, found.translation.end
        );
        if let Some(entry) = found.entry {
            let words = [
                entry.state.map(|s| s.to_string()),
                entry.owner_text().map(|owner| format!("of {owner}")),
            ];
            for word in words.iter().flatten() {
                heading.push_str(&format!(", {word}"));
            }
        }
        Ok((
            document,
            vec![(
                heading,
                view::walk_table(&found.regime.regime, &found.translation),
            )],
        ))
    }

    fn page(&self, pa: u64) -> Parts {
        let page = view::page(self.system, pa);
        let document = self
            .document("page", "mappings")
            .fields(json::page(self.system, &page))
            .elements(json::mappings(self.system, &page));
        let tables = [
            (String::new(), view::page_facts(self.system, &page)),
            (
                view::states_heading(self.system).to_owned(),
                view::page_states(&page),
            ),
            (
                "in the tables".to_owned(),
                view::mappings_table(self.system, &page),
            ),
        ];
        let tables = tables
            .into_iter()
            .filter(|(_, table)| !table.rows.is_empty());
        (document, tables.collect())
    }

    fn locks(&self) -> Parts {
        let document = self
            .document("locks", "locks")
            .field("note", self.system.no_locks.as_deref())
            .elements(self.system.locks.iter().map(json::lock));
        let mut tables = vec![untitled(view::locks_table(self.system))];
        tables.extend(
            view::inferred_table(self.system).map(|table| ("inferred holders".to_owned(), table)),
        );
        (document, tables)
    }

    fn cpus(&self) -> Parts {
        let document = self.document("cpus", "cpus").elements(
            self.system
                .cpus
                .iter()
                .map(|cpu| json::cpu(self.system, cpu)),
        );
        let mut tables = vec![untitled(view::cpus_table(self.system))];
        let cpus = self.system.cpus.iter();
        let called = cpus.filter(|cpu| cpu.source.is_some() || !cpu.calls.is_empty());
        tables.extend(called.map(|cpu| {
            let heading = format!("backtrace of CPU {}", cpu.number);
            (heading, view::calls_table(cpu))
        }));
        tables.extend(
            view::aborts_table(self.system)
                .map(|table| ("last aborts taken to EL2".to_owned(), table)),
        );
        tables.push(untitled(view::registers_table(self.system)));
        (document, tables)
    }

    fn vms(&self) -> Parts {
        let document = self
            .document("vms", "vms")
            .field("note", self.system.no_vms.as_deref())
            .elements(self.system.vms.iter().map(json::vm));
        let mut tables = vec![untitled(view::vms_table(self.system))];
        let vcpus = view::vcpus_table(self.system);
        if !vcpus.rows.is_empty() {
            tables.push(untitled(vcpus));
        }
        (document, tables)
    }

    /// Refuses a name that no regime has.
    fn regime(&self, name: &str) -> anyhow::Result<()> {
        let names: Vec<_> = self
            .system
            .regimes
            .iter()
            .map(|regime| regime.name.as_str())
            .collect();
        if names.contains(&name) {
            return Ok(());
        }
        if names.is_empty() {
            bail!(
                "{}: no regime `{name}`: {}",
                self.target,
                self.system.problems.join("; ")
            );
        }
        bail!(
            "{}: no regime `{name}`; there are {}",
            self.target,
            names.join(", ")
        )
    }
}

fn untitled(table: Table) -> (String, Table) {
    (String::new(), table)
}

#[cfg(test)]
mod tests {
    use super::super::arguments::{Arguments, Command};
    use super::*;
    use crate::model::testing::guests;
    use clap::Parser;
    use serde_json::{Value, json};

    /// What a line prints of three VMs.
    fn print(line: &str, format: Format) -> String {
        let words = ["inspector"].into_iter().chain(line.split_whitespace());
        let task = Arguments::try_parse_from(words).expect(line).task();
        let Command::Ask(ask) = task else {
            panic!("{line} asks nothing")
        };
        let answer = answer(&guests(), "made up", &ask).expect(line);
        let mut out = Vec::new();
        answer
            .write(format, &mut out)
            .expect("memory takes everything");
        String::from_utf8(out).expect("it is UTF-8")
    }

    fn document(line: &str) -> Value {
        serde_json::from_str(&print(line, Format::Json)).expect("sound JSON")
    }

    #[test]
    fn vms_and_their_vcpus() {
        let document = document("vms");
        assert_eq!(document["schema"], "inspector.vms/1");
        assert_eq!(document["note"], Value::Null);
        assert_eq!(
            document["vms"][1],
            json!({"handle": "0x1001", "protected": true, "state": "created", "vmid": 2, "pa": "0x40370000",
                "vcpus": [{"number": 0, "pa": "0x40378000", "cpu": 1}, {"number": 1, "pa": "0x40379000", "cpu": null}],
                "pages": {"owned": 8192, "shared_owned": 4096, "shared_borrowed": 0, "poisoned": 4096}})
        );
        assert_eq!(
            document["vms"][2],
            json!({"handle": "0x1002", "protected": null, "state": "reserved", "vmid": null, "pa": null,
                "vcpus": [], "pages": null})
        );
        let text = print("vms", Format::Text);
        assert!(
            text.contains("\n\nVM      VCPU  PA          CPU\n"),
            "{text}"
        );
    }

    #[test]
    fn cpus_have_backtraces_and_a_vcpu() {
        let cpu = &document("cpus")["cpus"][1];
        assert_eq!(cpu["stage2"], "guest-s2:0x1001");
        assert_eq!(cpu["vcpu"], json!({"handle": "0x1001", "number": 0}));
        assert_eq!(
            cpu["calls"][3],
            json!({"pc": "0x4040203330", "symbol": null, "source": null, "inlined": false})
        );
        assert_eq!(
            cpu["source"],
            json!({"file": "arch/arm64/kvm/hyp/entry.S", "line": 71})
        );
        assert_eq!(cpu["calls"][0]["inlined"], true);
        let text = print("cpus", Format::Text);
        assert_eq!(text.matches("backtrace of").count(), 1, "{text}");
        assert!(text.contains("backtrace of CPU 1\n# PC"), "{text}");
    }

    #[test]
    fn guests_addresses_stand_with_their_annotations_only() {
        let entries = document("list --regime host-s2");
        let entries = entries["entries"].as_array().expect("an array");
        let ipas: Vec<_> = entries.iter().map(|entry| entry.get("guest_ipa")).collect();
        assert_eq!(ipas, [None, None, Some(&json!("0x80000000")), None]);
        let page = document("page x 0x40201000");
        assert_eq!(page["mappings"][0]["guest_ipa"], "0x80001000");
        assert_eq!(page["guests"][0]["ipa"], "0x80001000");
    }

    #[test]
    fn a_page_has_its_share_count() {
        assert_eq!(document("page x 0x40002000")["refcount"], 1);
        assert_eq!(document("page x 0x40310000")["refcount"], 3, "the pool's");
        let text = print("page x 0x40002000", Format::Text);
        assert!(text.contains("\n\nstates, by page records"), "{text}");
        assert!(text.contains("\n\nin the tables\nREGIME "), "{text}");
    }
}
