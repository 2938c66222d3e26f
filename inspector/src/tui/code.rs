//! The instructions around a CPU's program counter, as memory holds them.

use crate::addr::Span;
use crate::model::{Cpu, EntryKind, HypervisorKind, System};
use crate::target::{Target, TargetError};

/// Bytes of code before and behind a program counter.
const AROUND: u64 = 0x100;
/// The smallest page: what lies within one is contiguous.
const PAGE: u64 = 0x1000;

/// Instructions one after the other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Code {
    /// Virtual address of the first.
    pub start: u64,
    /// Their words; `None` where memory could not be read.
    pub words: Vec<Option<u32>>,
}

impl Code {
    /// The word at an address.
    pub fn word_at(&self, pc: u64) -> Option<u32> {
        let at = usize::try_from(pc.checked_sub(self.start)? / 4).ok()?;
        *self.words.get(at)?
    }

    /// Whether there are instructions: memory of zeros holds none.
    pub fn is_code(&self) -> bool {
        self.words.iter().flatten().any(|word| *word != 0)
    }
}

/// Reads the code around every CPU's program counter, in one wait for all. The machine stands.
///
/// # Errors
/// The link failed.
pub fn read(target: &mut dyn Target, system: &System) -> Result<Vec<Code>, TargetError> {
    let pieces: Vec<Vec<Piece>> = system.cpus.iter().map(|cpu| around(system, cpu)).collect();
    let wanted: Vec<Span> = pieces
        .iter()
        .flatten()
        .filter_map(|piece| piece.pa)
        .collect();
    let mut answers = target.read_phys(&wanted)?.into_iter();
    let mut words = |piece: &Piece| {
        let answer = piece.pa.and_then(|_| answers.next());
        let bytes = answer.and_then(Result::ok).unwrap_or_default();
        let (words, _) = bytes.as_chunks::<4>();
        let mut words: Vec<_> = words
            .iter()
            .map(|word| Some(u32::from_le_bytes(*word)))
            .collect();
        words.resize((piece.va.size / 4) as usize, None);
        words
    };
    let code = pieces.iter().map(|pieces| Code {
        start: pieces.first().map_or(0, |piece| piece.va.start),
        words: pieces.iter().flat_map(&mut words).collect(),
    });
    Ok(code.collect())
}

/// Code that is contiguous in memory: in virtual addresses, and where it is.
struct Piece {
    va: Span,
    pa: Option<Span>,
}

/// The pieces around a program counter, in order.
fn around(system: &System, cpu: &Cpu) -> Vec<Piece> {
    let Some(pc) = cpu.pc.map(|pc| pc & !3) else {
        return Vec::new();
    };
    let (start, end) = (pc.saturating_sub(AROUND), pc.saturating_add(AROUND));
    let middle = (end & !(PAGE - 1)).clamp(start, end);
    let spans = [
        Span::new(start, middle - start),
        Span::new(middle, end - middle),
    ];
    let spans = spans.into_iter().filter(|va| va.size > 0);
    let piece = |va: Span| Piece {
        va,
        pa: physical(system, cpu, va.start).map(|pa| Span::new(pa, va.size)),
    };
    spans.map(piece).collect()
}

/// Where a CPU fetches the instruction at an address from. EL2 translates by its own tables; hyp's host has its MMU
/// off, and its stage 2 maps to the same addresses. How other hosts translate is not known.
fn physical(system: &System, cpu: &Cpu, va: u64) -> Option<u64> {
    if cpu.el? < 2 {
        let direct = system.hypervisor.kind == HypervisorKind::Hyp;
        let is_ram = system.ram.iter().any(|region| region.contains(va));
        return (direct && is_ram).then_some(va);
    }
    let hyp = system
        .regimes
        .iter()
        .find(|regime| regime.name == "hyp-s1")?;
    let entry = hyp.entry_of(va)?;
    let is_leaf = matches!(entry.kind, EntryKind::Block | EntryKind::Page);
    let pa = entry.leaf.oa?.checked_add(va - entry.leaf.ia)?;
    is_leaf.then_some(pa)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::testing::Fake;

    #[test]
    fn code_is_read_through_the_tables_of_el2() {
        let mut fake = Fake::new();
        let system = fake.system();
        let code = read(&mut fake, &system).expect("a link");
        assert_eq!(code.len(), 4);
        let pc = system.cpus[1].pc.expect("a PC");
        assert_eq!(code[1].start, pc - AROUND);
        assert_eq!(code[1].words.len(), 2 * AROUND as usize / 4);
        assert!(code[1].is_code());
        assert_eq!(code[1].word_at(pc), Some(0x9400_07ad));
        assert_eq!(code[1].word_at(pc - AROUND - 4), None);
        // The host's memory holds nothing.
        assert!(!code[0].is_code() && code[0].words[0] == Some(0));
    }

    #[test]
    fn what_lies_across_pages_is_two_pieces_and_what_is_unmapped_is_unknown() {
        let mut fake = Fake::new();
        let text = 0x40_4020_0000;
        fake.set(1, "pc", text + 0x80);
        let system = fake.system();
        let code = read(&mut fake, &system).expect("a link");
        let (below, above) = code[1].words.split_at(AROUND as usize / 8);
        assert!(below.iter().all(Option::is_none), "{below:?}");
        assert!(above.iter().all(Option::is_some), "{above:?}");
    }
}
