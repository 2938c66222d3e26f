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
    };
    Ok(Answer { document, tables })
}

type Parts = (Document, Vec<(String, Table)>);

/// What every answer is made from.
struct Context<'a> {
    system: &'a System,
    target: &'a str,
}

impl Context<'_> {
    fn document(&self, schema: &str, name: &'static str) -> Document {
        Document::new(schema, self.system.complete, self.target, name)
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
                entry.owner.map(|o| format!("of {o}")),
            ];
            for word in words.iter().flatten() {
                heading.push_str(&format!(", {word}"));
            }
        }
        Ok((document, vec![(heading, view::walk_table(&found))]))
    }

    fn page(&self, pa: u64) -> Parts {
        let page = view::page(self.system, pa);
        let document = self
            .document("page", "mappings")
            .fields(json::page(self.system, &page))
            .elements(json::mappings(self.system, &page));
        (
            document,
            vec![untitled(view::page_table(self.system, &page))],
        )
    }

    fn locks(&self) -> Parts {
        let document = self
            .document("locks", "locks")
            .elements(self.system.locks.iter().map(json::lock));
        (document, vec![untitled(view::locks_table(self.system))])
    }

    fn cpus(&self) -> Parts {
        let document = self
            .document("cpus", "cpus")
            .elements(self.system.cpus.iter().map(json::cpu));
        let tables = [
            view::cpus_table(self.system),
            view::registers_table(self.system),
        ];
        (document, tables.into_iter().map(untitled).collect())
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
