//! Any registers and any tables: the walk ends, within its bounds, and its entries are in order.
#![no_main]

use inspector::addr::Span;
use inspector::arch::regime::{El2Stage1, IdRegisters, Regime};
use inspector::arch::walk::{End, translate, walk_all};
use inspector::target::{ReadError, TargetError};
use libfuzzer_sys::fuzz_target;

/// Physical memory: the input over and over, from 0 up to here.
const BACKED: u64 = 1 << 24;

fuzz_target!(|input: (u64, u64, u64, bool, Vec<u8>)| {
    let (base, control, hcr, stage2, bytes) = input;
    let id = IdRegisters::default();
    let registers = El2Stage1 {
        tcr: control,
        hcr,
        ..El2Stage1::default()
    };
    let regime = if stage2 {
        Regime::stage2(base % BACKED, control, hcr, id)
    } else {
        Regime::el2_stage1(base % BACKED, registers, id)
    };
    let (Ok(regime), false) = (regime, bytes.is_empty()) else {
        return;
    };
    let mut read = |spans: &[Span]| {
        let one = |span: &Span| match span.start.checked_add(span.size) {
            Some(end) if end <= BACKED => Ok((span.start..end)
                .map(|at| bytes[at as usize % bytes.len()])
                .collect()),
            _ => Err(ReadError::Unbacked(*span)),
        };
        Ok::<_, TargetError>(spans.iter().map(one).collect())
    };
    let walk = walk_all(&regime, &mut read).unwrap();
    assert!(
        walk.entries
            .is_sorted_by(|a, b| a.ia + a.size <= b.ia && a.size > 0)
    );
    for entry in walk.entries.iter().take(16) {
        let way = translate(&regime, &mut read, entry.ia).unwrap();
        assert!(way.steps.iter().any(|step| step.at == entry.at));
        assert!(!matches!(way.end, End::OutOfRange { .. }));
    }
});
