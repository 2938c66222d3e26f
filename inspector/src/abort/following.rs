//! One trap on its way: what was seen so far, and what follows from it at the end.

mod fill;

use super::choice::{Choice, choose, region};
use super::difference::{self, Own, Tables, Written};
use super::ending;
use super::plan::{Role, Stop};
use super::steps::Steps;
use super::trap::{self, HOST_STAGE2};
use super::{
    Cause, Changes, Comparison, LockStep, Outcome, Place, Road, Stage, Step, Story, Word, calls,
};
use crate::addr::{Span, size_text};
use crate::arch::desc::Shape;
use crate::arch::esr;
use crate::arch::walk::{End, Translation, Walk};
use crate::hypervisor::without_code;
use crate::model::{HypervisorKind, RegimeCapture, System, Tickets};
use crate::target::Registers;

/// ESR_EL2.EC of an HVC from AArch64.
const HVC: u64 = 0x16;
/// How many stops a story tells of, should a hypervisor go round in circles.
const MAX_STOPS: usize = 4096;

/// A look at tables: those of each regime that was captured at the entry, in its order.
pub(super) type Look = Vec<Walk>;

/// One trap on its way.
#[derive(Debug)]
pub(super) struct Following {
    /// What is known so far.
    pub(super) story: Story,
    /// The machine at the entry.
    pub(super) before: System,
    /// The tables when this CPU held the lock first, and when it held it last.
    under_lock: Option<(Look, Look)>,
    /// The ticket that this CPU held the host's lock with.
    ticket: Option<u16>,
    /// The host's lock at the last step, if no other CPU has been stepped since.
    lock: Option<Tickets>,
    /// The ticket of the host's lock that it drew at a step.
    drawn: Option<u16>,
    /// How far it was stepped.
    pub(super) steps: Steps,
    /// Where functions on the way return to, and what they are.
    pub(super) returns: Vec<(u64, Stop)>,
    /// The function that maps is a stop, or no other CPU has executed anything since the lock was held.
    pub(super) sees_mapping: bool,
    /// It has come to the function that maps.
    maps: bool,
    /// Other CPUs have executed something since the lock was held.
    disturbed: bool,
    /// It was stepped to its end without that.
    steady: bool,
    /// It gave up before, and nobody knows why yet.
    pub(super) puzzling: bool,
    /// Where EL2 has the host's general registers, where they are not in the CPU's at the entry and at the end.
    pub(super) frame: Option<u64>,
}

/// Why a CPU came to EL2, as far as it is followed.
pub(super) enum Kind {
    Abort,
    Call,
}

/// What brought a CPU to the entry; `None` for what no story is about.
pub(super) fn kind(registers: &Registers) -> Option<Kind> {
    let syndrome = registers.get("ESR_EL2")?;
    if esr::is_abort_from_below(syndrome) {
        return Some(Kind::Abort);
    }
    (syndrome >> 26 & 0x3f == HVC).then_some(Kind::Call)
}

/// The host's lock.
pub(super) fn host_lock(system: &System) -> Option<&crate::model::Lock> {
    system.locks.iter().find(|lock| lock.name == "host")
}

fn place(system: &System, pc: u64) -> Place {
    Place {
        pc,
        symbol: system.symbols.name_of(pc),
    }
}

impl Following {
    /// Whether a CPU with these registers has executed nothing since the entry: the host's registers are still in it, and
    /// EL2 is told the same of why it came.
    pub(super) fn is_still_at_entry(&self, cpu: usize, registers: &Registers) -> bool {
        let then = self.before.cpus.get(cpu).map(|cpu| &cpu.registers);
        let general = (0..31).map(|number| format!("x{number}"));
        let others = ["sp", "pc", "ELR_EL2", "ESR_EL2", "FAR_EL2", "HPFAR_EL2"];
        let mut names = general.chain(others.map(str::to_owned));
        then.is_some_and(|then| names.all(|name| then.get(&name) == registers.get(&name)))
    }

    /// A trap whose CPU stands at the entry.
    pub(super) fn begin(
        before: System,
        cpu: usize,
        registers: &Registers,
        road: Road,
        sees_mapping: bool,
        frame: Option<u64>,
    ) -> Option<Self> {
        let get = |name| registers.get(name);
        let syndrome = get("ESR_EL2")?;
        let cause = match kind(registers)? {
            Kind::Abort => Cause::Abort(Box::new(trap::fault(&before, registers)?)),
            Kind::Call => Cause::Call(calls::call(&before, registers)),
        };
        let spsr = get("SPSR_EL2").unwrap_or(0);
        // From AArch32, which SPSR_EL2.M[4] says, it is the next one.
        let vector = 0x400 + (spsr >> 4 & 1) * 0x200;
        let vector = get("VBAR_EL2").map(|vectors| place(&before, vectors.wrapping_add(vector)));
        let vector = vector.or_else(|| road.entry.clone());
        let mut following = Self {
            story: Story {
                cpu,
                host: place(&before, get("ELR_EL2")?),
                from: (spsr >> 2 & 3) as u8,
                esr: syndrome,
                cause,
                steps: Vec::new(),
                writes: Vec::new(),
                changes: Changes::default(),
                outcome: Outcome::GaveUp { branch: None },
                after: None,
                instructions: None,
                road,
                problems: before.problems.clone(),
            },
            lock: host_lock(&before).and_then(|lock| lock.tickets),
            drawn: None,
            before,
            under_lock: None,
            ticket: None,
            steps: Steps::default(),
            returns: Vec::new(),
            sees_mapping,
            maps: false,
            disturbed: false,
            steady: false,
            puzzling: false,
            frame,
        };
        let text = format!("takes the exception: {}", esr::class(syndrome));
        following.step(Stage::Trap, vector, text);
        Some(following)
    }

    /// Regimes whose tables are compared.
    pub(super) fn regimes(&self) -> &[RegimeCapture] {
        &self.before.regimes
    }

    fn step(&mut self, stage: Stage, place: Option<Place>, text: String) {
        self.story.steps.push(Step {
            stage,
            place,
            text,
            lock: None,
        });
    }

    pub(super) fn ipa(&self) -> Option<u64> {
        self.story.fault().and_then(|fault| fault.ipa)
    }

    /// The CPU stands at a function, with the host's lock as it then is.
    pub(super) fn reach(&mut self, stop: &Stop, registers: &Registers, lock: Option<Tickets>) {
        let stops = &mut self.story.road.functions;
        if stops.len() == MAX_STOPS {
            let problem = format!(
                "it stopped more than {MAX_STOPS} times on its way: no step after that is told"
            );
            if !self.story.problems.contains(&problem) {
                self.story.problems.push(problem);
            }
            return;
        }
        stops.push(stop.place.clone());
        let mut text = stop.function.text.to_owned();
        match stop.function.role {
            Role::LookUp => self.take_lock(lock),
            Role::Map { argument } => {
                self.take_lock(lock);
                self.maps = true;
                if let Some(range) = argument.and_then(|number| range(registers, number)) {
                    text = format!("{text}: {} at {:#x}", size_text(range.size), range.start);
                    self.see_choice(range);
                }
                if self.has_looked() {
                    self.fill_choice();
                }
            }
            Role::Reached | Role::Transition | Role::Panic => {}
        }
        if matches!(stop.function.role, Role::Map { .. } | Role::Transition)
            && let Some(link) = registers.get("x30")
        {
            let back = without_code(link, self.hyp_bits());
            self.returns.push((back, stop.clone()));
        }
        self.step(stop.function.stage, Some(stop.place.clone()), text);
    }

    /// How many bits of EL2's addresses are translated; all where that is not known.
    fn hyp_bits(&self) -> u32 {
        let mut regimes = self.before.regimes.iter();
        let hyp = regimes.find(|regime| regime.name == "hyp-s1");
        hyp.map_or(64, |hyp| hyp.regime.ia_bits)
    }

    /// A function has returned, in C with a result.
    pub(super) fn returned(&mut self, stop: &Stop, registers: &Registers) {
        let result = registers.get("x0").map(|x0| x0 as i32);
        let is_c = self.before.hypervisor.kind == HypervisorKind::Pkvm;
        let text = match result.filter(|_| is_c) {
            Some(result) => format!("{} returns {result}", stop.function.name),
            None => format!("{} returns", stop.function.name),
        };
        let at = registers.get("pc").map(|pc| place(&self.before, pc));
        self.step(stop.function.stage, at, text);
    }

    /// This CPU holds the host's lock, whose ticket is then its own.
    fn take_lock(&mut self, lock: Option<Tickets>) {
        let (Some(tickets), None) = (lock, self.ticket) else {
            return;
        };
        if !tickets.held() {
            return;
        }
        self.ticket = Some(tickets.owner);
        let at_entry = host_lock(&self.before);
        let held = at_entry.and_then(|lock| lock.tickets.filter(|tickets| tickets.held()));
        let holder = at_entry
            .and_then(|lock| lock.holder.as_ref())
            .map(|holder| holder.cpu);
        let mut text = format!("takes the lock host, ticket {}", tickets.owner);
        if let Some(before) = held.filter(|before| before.owner != tickets.owner) {
            let holder =
                holder.map_or_else(|| "another CPU".to_owned(), |cpu| format!("CPU {cpu}"));
            text.push_str(&format!(
                ", after {holder}, which held ticket {}",
                before.owner
            ));
        }
        if tickets.waiters() > 0 {
            text.push_str(
                match tickets.waiters() {
                    1 => "; another CPU waits behind".to_owned(),
                    waiters => format!("; {waiters} CPUs wait behind"),
                }
                .as_str(),
            );
        }
        self.story.steps.push(Step {
            stage: Stage::Lock,
            place: None,
            text,
            lock: Some(LockStep {
                name: "host".to_owned(),
                tickets,
                holder: Some(self.story.cpu as u64),
            }),
        });
    }

    /// Takes in the tables as they are while this CPU holds the lock.
    pub(super) fn look(&mut self, look: Look) {
        let first = match self.under_lock.take() {
            Some((first, _)) => first,
            None => {
                self.look_up(&look);
                look.clone()
            }
        };
        self.under_lock = Some((first, look));
    }

    /// Another CPU is stepped while this one is.
    pub(super) fn others_stepped(&mut self) {
        self.disturbed |= self.under_lock.is_some();
        self.lock = None;
    }

    /// Whether the tables can have been changed by this CPU only since it held the lock. Its steps must say so.
    pub(super) fn is_steady(&mut self) -> bool {
        self.steady = self.under_lock.is_some() && !self.disturbed;
        self.sees_mapping |= self.steady;
        self.steady
    }

    /// Where the host's lock is.
    pub(super) fn host_lock_at(&self) -> Option<u64> {
        host_lock(&self.before).map(|lock| lock.pa)
    }

    /// Whether the tables were looked at under the lock.
    pub(super) fn has_looked(&self) -> bool {
        self.under_lock.is_some()
    }

    /// The host's lock as it was seen last by a step, or at the entry.
    pub(super) fn known_lock(&self) -> Option<Tickets> {
        self.lock
    }

    /// The host's lock after a step of this CPU: if a ticket more is out, it is this one's.
    pub(super) fn see_lock(&mut self, lock: Option<Tickets>) {
        let Some(now) = lock else { return };
        if let Some(before) = self.lock.replace(now)
            && now.next == before.next.wrapping_add(1)
        {
            self.drawn = Some(before.next);
        }
        if self.drawn == Some(now.owner) {
            self.take_lock(lock);
        }
    }

    /// Whether the tables are this CPU's to change where it has come to a function that is called under the host's lock, or
    /// back from one: it holds the lock, or nobody knows where that is.
    pub(super) fn may_look(&self, lock: Option<Tickets>) -> bool {
        self.holds(lock) || self.host_lock_at().is_none()
    }

    /// Whether this CPU is known to hold the host's lock, by its ticket.
    pub(super) fn holds(&self, lock: Option<Tickets>) -> bool {
        lock.is_some_and(|tickets| self.ticket == Some(tickets.owner) && tickets.held())
    }

    /// What the look-up finds, and the range that follows from it.
    fn look_up(&mut self, look: &Look) {
        let Some(ipa) = self.ipa() else { return };
        let regimes = self.before.regimes.iter().zip(look);
        let host = regimes
            .clone()
            .find(|(regime, _)| regime.name == HOST_STAGE2);
        let Some((host, walk)) = host else { return };
        let now = RegimeCapture {
            tables: walk.tables.clone(),
            entries: Vec::new(),
            ..host.clone()
        };
        let translation = now.translate(ipa);
        let text = found_text(&translation);
        let choice = self.choose(host, &translation);
        if let Some(step) = self
            .story
            .steps
            .iter_mut()
            .rev()
            .find(|step| step.stage == Stage::LookUp)
        {
            step.text = format!("{}: {text}", step.text);
        }
        if let Cause::Abort(fault) = &mut self.story.cause {
            fault.choice = choice;
        }
    }

    fn choose(&self, host: &RegimeCapture, translation: &Translation) -> Option<Choice> {
        let last = translation.steps.last()?;
        let ipa = translation.ia;
        let (region, _) = region(&self.before.ram, ipa, host.regime.ia_bits);
        matches!(translation.end, End::Hole { .. })
            .then(|| choose(&host.regime, ipa, last.level, region))
    }

    fn see_choice(&mut self, range: Span) {
        if let Cause::Abort(fault) = &mut self.story.cause
            && let Some(choice) = &mut fault.choice
        {
            choice.seen = Some(range);
        }
    }

    /// The CPU leaves EL2, or will never; `end` says where it was last seen there.
    pub(super) fn end(mut self, after: &System, registers: &Registers, end: Seen) -> Story {
        self.compare(after);
        let at = registers.get("pc").map(|pc| place(&self.before, pc));
        self.story.road.exit = at.clone();
        self.story.after = match end {
            Seen::Returns => registers.get("ELR_EL2").map(|pc| place(after, pc)),
            Seen::Host => at.clone(),
            Seen::Panic | Seen::Lost => None,
        };
        let lost = at.unwrap_or_else(|| self.story.host.clone());
        self.story.outcome = match (&end, self.story.after.clone()) {
            (Seen::Panic, _) => Outcome::Panic {
                at: ending::panicked_at(registers).map_or(lost, |pc| place(after, pc)),
            },
            (Seen::Returns | Seen::Host, Some(to)) => self.outcome(after, registers, to),
            _ => Outcome::Left { to: lost },
        };
        self.fill(after);
        if let Cause::Call(call) = &mut self.story.cause {
            call.returned(&self.before, after, registers);
        }
        self.story
    }

    /// Words, owners, counts and locks that changed.
    fn compare(&mut self, after: &System) {
        // A function that maps and was not seen to return may have written since the last look: it has panicked.
        let exact = match self.story.fault() {
            Some(_) => {
                let looked = self.under_lock.is_some() || !self.maps;
                self.sees_mapping && self.returns.is_empty() && looked
            }
            // hyp looks the leaf up before it writes anything; of all of Linux's calls, that is not known.
            None => self.steady && self.before.hypervisor.kind == HypervisorKind::Hyp,
        };
        let mut all = Written::default();
        for (index, regime) in self.before.regimes.iter().enumerate() {
            let Some(now) = after.regimes.iter().find(|now| now.name == regime.name) else {
                continue;
            };
            let looks = self.under_lock.as_ref();
            let looks = looks.and_then(|(first, last)| Some((first.get(index)?, last.get(index)?)));
            let (before, after) = match looks.filter(|_| exact) {
                Some((first, last)) => (&first.tables, &last.tables),
                // It never came to where it would have mapped.
                None if exact => continue,
                None => (&regime.tables, &now.tables),
            };
            let written = difference::written(&Tables {
                name: &regime.name,
                regime: &regime.regime,
                before,
                after,
                meaning: [Some(regime), Some(now)],
            });
            all.writes.extend(written.writes);
            all.linked.extend(written.linked);
            all.freed.extend(written.freed);
        }
        let own = exact.then(|| own(&all, &self.before));
        self.story.changes = difference::changes(&self.before, after, own.as_ref());
        self.story.changes.tables_linked = all.linked;
        self.story.changes.tables_freed = all.freed;
        self.story.writes = all.writes;
        self.story.road.writes = match exact {
            true => Comparison::UnderLock,
            false => Comparison::EntryToEnd,
        };
    }
}

/// Where a story's CPU was seen last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// At an instruction that returns from EL2.
    Returns,
    /// In the host already.
    Host,
    /// In the hypervisor's panic.
    Panic,
    /// At the entry again, without having been seen to return.
    Lost,
}

/// A range in two registers, of which the second has its size.
fn range(registers: &Registers, number: u8) -> Option<Span> {
    let get = |number: u8| registers.get(&format!("x{number}"));
    Some(Span::new(get(number)?, get(number + 1)?))
}

/// What a look-up finds.
fn found_text(translation: &Translation) -> String {
    let level = translation.steps.last().map_or(0, |step| step.level);
    match &translation.end {
        End::Mapped { size, .. } => {
            format!("it is mapped by now, {} at level {level}", size_text(*size))
        }
        End::Hole { size, .. } => format!("a hole of {} at level {level}", size_text(*size)),
        End::Invalid { raw, .. } => format!("{raw:#x} at level {level}: not the host's"),
        End::OutOfRange { .. } => "beyond the tables".to_owned(),
        End::Reserved { problem } | End::Unreadable { problem } => problem.clone(),
    }
}

/// The pages that these writes are about. Words of EL2's tables cover virtual addresses.
fn own(written: &Written, system: &System) -> Own {
    let page = |at: u64| at & !0xfff;
    let tables = written.writes.iter().map(|write| page(write.at));
    let tables = tables
        .chain(written.linked.iter().copied())
        .chain(written.freed.iter().copied());
    // What a table covers, the words in it say.
    let is_table =
        |word: &Option<Word>| word.is_none_or(|word| word.descriptor.shape == Shape::Table);
    let words = written.writes.iter();
    let words = words.filter(|write| !(is_table(&write.old) && is_table(&write.new)));
    let memory = words.map(|write| {
        let offset = match write.regime.as_str() {
            "hyp-s1" => system.physvirt_offset.unwrap_or(0),
            _ => 0,
        };
        Span::new(write.ia.wrapping_add(offset), write.size)
    });
    Own {
        tables: tables.collect(),
        memory: memory.collect(),
    }
}

#[cfg(test)]
mod tests;
