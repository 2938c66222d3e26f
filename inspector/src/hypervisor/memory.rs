//! Memory of the machine, as a kernel and what runs at EL2 address it: by linked address, by EL2's virtual address, by physical address.
//!
//! A wait on the link costs more than what comes with it. So whoever reads, a [job](Job), asks as if all were there, and
//! is told [`NotYet`] where it is not; what all jobs miss is then read in one wait, and they begin anew.

use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::arch::walk::{End, Table, translate};
use crate::target::{ReadError, Target, TargetError};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What was asked for comes with the next wait. Only [`Memory`] says so.
#[derive(Debug)]
pub(super) struct NotYet(());

/// Something that reads memory and keeps the result. It is begun anew until it has all it needs, and then not again. What
/// it can ask for at once, it asks for before it gives up on any of it.
pub(super) type Job<'j> = dyn FnMut(&mut Memory<'_>) -> Result<(), NotYet> + 'j;

/// The memory of the machine as the kernel and its hypervisor address it.
pub(super) struct Memory<'a> {
    pub(super) target: &'a mut dyn Target,
    /// Physical − linked, wrapping, of the kernel's image.
    pub(super) image_offset: u64,
    /// EL2's own translation, once it is on.
    pub(super) hyp: Option<Regime>,
    /// The tables of that translation, by their physical address: they are read once.
    tables: HashMap<u64, Vec<u8>>,
    /// PA = EL2's linear address + this, wrapping (`hyp_physvirt_offset`), once it is known.
    pub(super) physvirt_offset: Option<u64>,
    /// By the CPU's number, what stands in for a `TPIDR_EL2` that is not known.
    pub(super) per_cpu: HashMap<usize, u64>,
    /// By number, the CPUs in a guest for which no `VTTBR_EL2` tells it.
    pub(super) in_guest: HashSet<usize>,
    /// The host kernel's own translation, where EL1's registers do not tell it.
    pub(super) host: Option<Regime>,
    /// What was asked for and came: the machine stands still, so nothing is read twice.
    answers: HashMap<Span, Result<Vec<u8>, ReadError>>,
    /// What was asked for and comes with the next wait.
    wanted: BTreeSet<Span>,
}

impl<'a> Memory<'a> {
    /// Of a kernel of which nothing is known yet.
    pub(super) fn new(target: &'a mut dyn Target) -> Self {
        Self {
            target,
            image_offset: 0,
            hyp: None,
            tables: HashMap::new(),
            physvirt_offset: None,
            per_cpu: HashMap::new(),
            in_guest: HashSet::new(),
            host: None,
            answers: HashMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// From now on translates EL2's addresses, by tables that were read already.
    pub(super) fn know_hyp(&mut self, regime: Regime, tables: &[Table]) {
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let tables = tables.iter().map(|table| (table.pa, bytes(&table.words)));
        self.tables = tables.collect();
        self.hyp = Some(regime);
    }

    /// Does all jobs, side by side.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn gather(&mut self, jobs: &mut [&mut Job<'_>]) -> Result<(), TargetError> {
        let mut left: Vec<_> = jobs.iter_mut().collect();
        loop {
            left.retain_mut(|job| job(self).is_err());
            if left.is_empty() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Does one thing, however often it has to begin.
    ///
    /// # Errors
    /// The link failed.
    pub(super) fn complete<T>(
        &mut self,
        mut read: impl FnMut(&mut Memory<'_>) -> Result<T, NotYet>,
    ) -> Result<T, TargetError> {
        loop {
            if let Ok(done) = read(self) {
                return Ok(done);
            }
            self.wait()?;
        }
    }

    /// Reads what was asked for.
    fn wait(&mut self) -> Result<(), TargetError> {
        let spans: Vec<_> = std::mem::take(&mut self.wanted).into_iter().collect();
        let mut answers = self.target.read_phys(&spans)?.into_iter();
        for span in spans {
            let answer = answers.next().unwrap_or_else(|| {
                let reason = "the target gave no answer for it".to_owned();
                Err(ReadError::Refused { span, reason })
            });
            self.answers.insert(span, answer);
        }
        Ok(())
    }

    /// Where a linked address is in physical memory.
    pub(super) fn phys_of_linked(&self, linked: u64) -> u64 {
        linked.wrapping_add(self.image_offset)
    }

    /// Where one of EL2's virtual addresses is in physical memory, by a walk of its tables.
    pub(super) fn phys_of_hyp(&mut self, va: u64) -> Result<Option<u64>, NotYet> {
        match self.hyp.clone() {
            Some(regime) => self.translate(&regime, va),
            None => Ok(None),
        }
    }

    /// Where an address that a regime translates is in physical memory.
    pub(super) fn translate(&mut self, regime: &Regime, ia: u64) -> Result<Option<u64>, NotYet> {
        let page = !(regime.granule.bytes() - 1);
        let mut read = |spans: &[Span]| {
            let known = spans.iter().map(|span| {
                let table = self.tables.get(&(span.start & page))?;
                let at = usize::try_from(span.start & !page).ok()?;
                let bytes = table.get(at..)?.get(..usize::try_from(span.size).ok()?)?;
                Some(Ok(bytes.to_vec()))
            });
            match known.collect() {
                Some(answers) => Ok(answers),
                None => self.read_all(spans),
            }
        };
        let found = translate(regime, &mut read, ia)?;
        Ok(match found.end {
            End::Mapped { oa, .. } => Some(oa),
            _ => None,
        })
    }

    /// Ranges of physical memory, or why one of them cannot be read; answers as [`Target::read_phys`].
    pub(super) fn read_all(
        &mut self,
        spans: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, NotYet> {
        let answers = &self.answers;
        let missing = spans.iter().filter(|span| !answers.contains_key(span));
        self.wanted.extend(missing);
        let known = spans.iter().map(|span| answers.get(span).cloned());
        known.collect::<Option<_>>().ok_or(NotYet(()))
    }

    /// Physical memory; `None` where it cannot be read.
    pub(super) fn read(&mut self, span: Span) -> Result<Option<&[u8]>, NotYet> {
        match self.answers.get(&span) {
            Some(answer) => Ok(answer.as_deref().ok()),
            None => {
                self.wanted.insert(span);
                Err(NotYet(()))
            }
        }
    }

    /// A little-endian word of at most 8 bytes in physical memory.
    pub(super) fn word(&mut self, pa: u64, size: u64) -> Result<Option<u64>, NotYet> {
        let bytes = self.read(Span::new(pa, size.min(8)))?;
        Ok(bytes.map(little_endian))
    }
}

/// The number that at most 8 bytes hold.
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, RAM};
    use super::*;

    /// Follows pointers, each of which leads to the next one.
    fn follow(memory: &mut Memory<'_>, start: u64, steps: usize) -> Result<Option<u64>, NotYet> {
        let mut at = start;
        for _ in 0..steps {
            match memory.word(at, 8)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    #[test]
    fn what_jobs_miss_at_a_time_is_one_wait() {
        let mut machine = Machine::new();
        let place = |n: u64| RAM.start + 0x8000 + n * 8;
        for n in 0..10 {
            machine.put(place(n), &[place(n + 1)]);
        }
        machine.put(place(10), &[0]);
        let (mut short, mut long, mut lost, mut begun) = (None, None, None, 0);
        let mut memory = machine.memory();
        let done = memory.gather(&mut [
            &mut |memory| {
                begun += 1;
                short = Some(follow(memory, place(7), 3)?);
                Ok(())
            },
            &mut |memory| {
                let one = follow(memory, place(0), 5);
                let other = follow(memory, place(5), 4);
                long = Some((one?, other?));
                Ok(())
            },
            &mut |memory| {
                lost = Some(follow(memory, place(10), 3)?);
                Ok(())
            },
        ]);
        done.expect("the link holds");
        let again = memory.complete(|memory| follow(memory, place(0), 10));
        assert_eq!(again.expect("the link holds"), Some(place(10)));
        assert_eq!(short, Some(Some(place(10))));
        assert_eq!(long, Some((Some(place(5)), Some(place(9)))));
        assert_eq!(lost, Some(None), "nothing is at 0");
        assert_eq!(
            begun, 4,
            "once more than it had to wait, and then not again"
        );
        // The longest chain of 5; the 10th pointer comes with the chain from the 7th.
        assert_eq!(machine.waits, 5);
    }
}
