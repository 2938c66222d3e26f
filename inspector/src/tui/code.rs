//! The instructions around a CPU's program counter, as memory holds them.

use crate::addr::Span;
use crate::arch::regime::{Regime, vmid};
use crate::arch::walk::{End, translate};
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
    /// The host's instruction that an exception to EL2 returns to, while it is handled there.
    pub interrupted: Option<u32>,
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
    let mut pieces = Vec::new();
    for cpu in &system.cpus {
        let mut of_cpu = around(target, system, cpu)?;
        of_cpu.push(interrupted(target, system, cpu)?);
        pieces.push(of_cpu);
    }
    let wanted = pieces.iter().flatten().filter_map(|piece| piece.pa);
    let wanted: Vec<Span> = wanted.collect();
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
    let code = pieces.iter().map(|pieces| {
        let (last, around) = pieces.split_last()?;
        Some(Code {
            start: around.first().map_or(0, |piece| piece.va.start),
            words: around.iter().flat_map(&mut words).collect(),
            interrupted: words(last).pop().flatten(),
        })
    });
    Ok(code.map(Option::unwrap_or_default).collect())
}

/// Code that is contiguous in memory: in virtual addresses, and where it is.
struct Piece {
    va: Span,
    pa: Option<Span>,
}

/// The pieces around a program counter, in order.
fn around(target: &mut dyn Target, system: &System, cpu: &Cpu) -> Result<Vec<Piece>, TargetError> {
    let (Some(pc), Some(el)) = (cpu.pc.map(|pc| pc & !3), cpu.el) else {
        return Ok(Vec::new());
    };
    let (start, end) = (pc.saturating_sub(AROUND), pc.saturating_add(AROUND));
    let middle = (end & !(PAGE - 1)).clamp(start, end);
    let spans = [
        Span::new(start, middle - start),
        Span::new(middle, end - middle),
    ];
    let spans = spans.into_iter().filter(|va| va.size > 0);
    let mut piece = |va: Span| piece(target, system, cpu, el, va);
    spans.map(&mut piece).collect()
}

/// The host's instruction that a CPU at EL2 will return to.
fn interrupted(target: &mut dyn Target, system: &System, cpu: &Cpu) -> Result<Piece, TargetError> {
    let get = |name| cpu.registers.get(name);
    let from = get("SPSR_EL2").map(|spsr| (spsr >> 2 & 3) as u8);
    match (cpu.el, get("ELR_EL2"), from) {
        (Some(2), Some(pc), Some(1)) => piece(target, system, cpu, 1, Span::new(pc, 4)),
        _ => Ok(Piece {
            va: Span::new(0, 0),
            pa: None,
        }),
    }
}

fn piece(
    target: &mut dyn Target,
    system: &System,
    cpu: &Cpu,
    el: u8,
    va: Span,
) -> Result<Piece, TargetError> {
    let pa = physical(target, system, cpu, el, va.start)?;
    Ok(Piece {
        va,
        pa: pa.map(|pa| Span::new(pa, va.size)),
    })
}

/// Where a CPU fetches the instruction at an address from. EL2 translates by its own tables. A kernel of the host does so,
/// too, and what it takes for physical is so; hyp's host has its MMU off.
fn physical(
    target: &mut dyn Target,
    system: &System,
    cpu: &Cpu,
    el: u8,
    va: u64,
) -> Result<Option<u64>, TargetError> {
    if el >= 2 {
        return Ok(at_el2(system, va));
    }
    let is_host = cpu
        .registers
        .get("VTTBR_EL2")
        .is_some_and(|vttbr| vmid(vttbr) == 0);
    match system.hypervisor.kind {
        HypervisorKind::Hyp => {
            let is_ram = system.ram.iter().any(|region| region.contains(va));
            Ok(Some(va).filter(|_| is_ram))
        }
        // The upper half: below, each process has its own.
        _ if is_host && va >> 63 == 1 => by_el1(target, cpu, va),
        _ => Ok(None),
    }
}

fn at_el2(system: &System, va: u64) -> Option<u64> {
    let hyp = system
        .regimes
        .iter()
        .find(|regime| regime.name == "hyp-s1")?;
    let entry = hyp.entry_of(va)?;
    let is_leaf = matches!(entry.kind, EntryKind::Block | EntryKind::Page);
    let pa = entry.leaf.oa?.checked_add(va - entry.leaf.ia)?;
    is_leaf.then_some(pa)
}

fn by_el1(target: &mut dyn Target, cpu: &Cpu, va: u64) -> Result<Option<u64>, TargetError> {
    let Some(regime) = Regime::el1_upper_of(&cpu.registers) else {
        return Ok(None);
    };
    let ia = va
        & 1_u64
            .checked_shl(regime.ia_bits)
            .map_or(u64::MAX, |end| end - 1);
    let mut read = |spans: &[Span]| target.read_phys(spans);
    Ok(match translate(&regime, &mut read, ia)?.end {
        End::Mapped { oa, .. } => Some(oa),
        _ => None,
    })
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

    #[test]
    fn the_hosts_instruction_is_read_while_its_abort_is_handled() {
        let mut fake = Fake::new();
        let at = 0x4100_0428;
        fake.ram.put(at, &0xf900_0001_u32.to_le_bytes());
        let system = fake.system();
        let code = read(&mut fake, &system).expect("a link");
        assert_eq!(code[1].interrupted, Some(0xf900_0001));
        // This one is at EL1.
        assert_eq!(code[0].interrupted, None);
    }

    #[test]
    fn a_kernels_code_is_read_through_its_own_tables() {
        const ROOT: u64 = 0x4200_0000;
        const CODE: u64 = 0x4300_0000;
        let va = 0xffff_8000_8001_0000;
        let mut fake = Fake::new();
        // 48 bits, 4 KiB: T1SZ, TG1, IPS.
        for (register, value) in [
            ("TCR_EL1", 16 << 16 | 2 << 30 | 5 << 32),
            ("TTBR1_EL1", ROOT),
            ("SCTLR_EL1", 1),
        ] {
            fake.set(0, register, value);
        }
        fake.set(0, "pc", va + 0x100);
        let mut table = ROOT;
        for level in 0..4_u64 {
            let index = va >> (39 - 9 * level) & 0x1ff;
            let next = match level {
                3 => CODE | 0x403,
                _ => table + 0x1003,
            };
            fake.ram.put(table + 8 * index, &next.to_le_bytes());
            table += 0x1000;
        }
        fake.ram.put(CODE + 0x100, &0xd503_201f_u32.to_le_bytes());
        let mut system = fake.system();
        system.hypervisor.kind = HypervisorKind::Pkvm;
        let code = read(&mut fake, &system).expect("a link");
        assert_eq!(code[0].word_at(va + 0x100), Some(0xd503_201f));
        // In a guest these are the guest's.
        let vttbr = system.cpus[0].registers.get("VTTBR_EL2").expect("one");
        let guest = vttbr | 1 << 48;
        let registers = &mut system.cpus[0].registers.0;
        registers.insert("VTTBR_EL2".to_owned(), guest);
        let code = read(&mut fake, &system).expect("a link");
        assert_eq!(code[0].word_at(va + 0x100), None);
    }
}
