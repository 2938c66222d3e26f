use super::*;
use gimli::write::{
    Address, CallFrameInstruction as Do, CommonInformationEntry, DebugFrame, EhFrame, EndianVec,
    Expression, FrameDescriptionEntry, FrameTable,
};
use gimli::{AArch64, Encoding, Format, LittleEndian};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;

const CODE: u64 = 0x40_4020_1000;
/// Of each function.
const SIZE: u64 = 0x40;
const SP: u64 = 0x8000;
/// Where it was called, and the caller's caller.
const RETURN: u64 = 0x40_4020_5004;

fn encoding(version: u16) -> Encoding {
    Encoding {
        format: Format::Dwarf32,
        version,
        address_size: 8,
    }
}

/// In the manner of a compiler: a record of 32 bytes from its second instruction on, signed from the first one on, and none
/// from 0x30 on again.
fn function(start: u64) -> FrameDescriptionEntry {
    let mut function = FrameDescriptionEntry::new(Address::Constant(start), SIZE as u32);
    for (offset, instruction) in [
        (4, Do::NegateRaState),
        (8, Do::CfaOffset(32)),
        (8, Do::Offset(AArch64::X29, -32)),
        (8, Do::Offset(AArch64::X30, -24)),
        (8, Do::Offset(AArch64::X19, -16)),
        (0x10, Do::RememberState),
        (0x30, Do::CfaOffset(0)),
        (0x30, Do::Restore(AArch64::X29)),
        (0x30, Do::Restore(AArch64::X30)),
        (0x30, Do::Restore(AArch64::X19)),
        (0x30, Do::NegateRaState),
        (0x38, Do::RestoreState),
    ] {
        function.add_instruction(offset, instruction);
    }
    function
}

fn common(version: u16) -> CommonInformationEntry {
    let mut common = CommonInformationEntry::new(encoding(version), 4, -8, AArch64::X30);
    common.add_instruction(Do::Cfa(AArch64::SP, 0));
    common
}

fn expression(make: impl FnOnce(&mut Expression)) -> Expression {
    let mut expression = Expression::new();
    make(&mut expression);
    expression
}

/// A function as above; one with expressions; an exception's entry; one that nothing called; one whose expression has no end.
fn table(version: u16) -> FrameTable {
    let mut table = FrameTable::default();
    let plain = table.add_cie(common(version));
    table.add_fde(plain, function(CODE));
    let at = |n| Address::Constant(CODE + n * SIZE);
    let mut fde = FrameDescriptionEntry::new(at(1), SIZE as u32);
    for instruction in [
        // What is at x29 + 8; 16 and 8 less than it; 8 more than it.
        Do::CfaExpression(expression(|of| {
            of.op_breg(AArch64::X29, 8);
            of.op_deref();
        })),
        Do::Expression(
            AArch64::X30,
            expression(|of| {
                of.op_consts(-8);
                of.op(gimli::DW_OP_plus);
            }),
        ),
        Do::ValExpression(AArch64::X29, expression(|of| of.op_plus_uconst(8))),
        Do::Register(AArch64::X19, AArch64::X0),
        Do::ValOffset(AArch64::X20, -16),
        Do::SameValue(AArch64::X1),
        Do::Undefined(AArch64::X21),
    ] {
        fde.add_instruction(0, instruction);
    }
    table.add_fde(plain, fde);
    let mut entry = common(version);
    entry.signal_trampoline = true;
    let entry = table.add_cie(entry);
    let mut fde = FrameDescriptionEntry::new(at(2), SIZE as u32);
    fde.add_instruction(0, Do::CfaOffset(64));
    fde.add_instruction(0, Do::Offset(AArch64::X0, -64));
    fde.add_instruction(0, Do::Offset(gimli::Register(32), -8));
    table.add_fde(entry, fde);
    let mut fde = FrameDescriptionEntry::new(at(3), SIZE as u32);
    fde.add_instruction(0, Do::Undefined(AArch64::X30));
    table.add_fde(plain, fde);
    let mut fde = FrameDescriptionEntry::new(at(4), SIZE as u32);
    let endless = expression(|of| {
        of.op_constu(0);
        let skip = of.op_skip();
        of.set_target(skip, 0);
    });
    fde.add_instruction(0, Do::CfaExpression(endless));
    table.add_fde(plain, fde);
    table
}

fn debug_frame(version: u16) -> Vec<u8> {
    let mut section = DebugFrame::from(EndianVec::new(LittleEndian));
    table(version)
        .write_debug_frame(&mut section)
        .expect("it can be written");
    section.slice().to_vec()
}

fn eh_frame() -> Vec<u8> {
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table(1)
        .write_eh_frame(&mut section)
        .expect("it can be written");
    section.slice().to_vec()
}

fn in_debug_frame(bytes: &[u8]) -> CallFrames {
    let debug_frame: Arc<[u8]> = bytes.into();
    CallFrames::new(|| Sections {
        debug_frame,
        ..Sections::default()
    })
}

fn in_eh_frame(bytes: &[u8]) -> CallFrames {
    let eh_frame: Arc<[u8]> = bytes.into();
    CallFrames::new(|| Sections {
        eh_frame,
        ..Sections::default()
    })
}

fn both() -> [CallFrames; 4] {
    let [old, middle, new] = [1, 3, 4].map(|version| in_debug_frame(&debug_frame(version)));
    [old, middle, new, in_eh_frame(&eh_frame())]
}

/// x0 to x30 are their numbers, but x29 points into the stack.
fn activation(pc: u64) -> Activation {
    let mut at = Activation {
        sp: Some(SP),
        ..Activation::at(pc)
    };
    for (n, x) in (0..).zip(&mut at.x) {
        *x = Some(n);
    }
    at.x[29] = Some(SP + 0x100);
    at
}

/// Each word of the stack has its address and 1; elsewhere there is no memory.
fn word(va: u64) -> Result<Option<u64>, Infallible> {
    const STACK: RangeInclusive<u64> = SP..=SP + 0x1000;
    Ok(STACK.contains(&va).then_some(va + 1))
}

fn caller(frames: &mut CallFrames, at: &Activation) -> Option<Caller> {
    let rules = frames.rules(at.pc)?;
    let Ok(caller) = rules.caller(at, &mut word);
    Some(caller)
}

#[test]
fn at_each_instruction_the_caller_is_the_same() {
    for mut frames in both() {
        for offset in (0..SIZE).step_by(4) {
            let at = activation(CODE + offset);
            let found = caller(&mut frames, &at);
            let Some(Caller::At(caller, cfa)) = found else {
                panic!("{offset:#x}: {found:?}");
            };
            let pushed = (8..0x30).contains(&offset) || offset >= 0x38;
            let kept = match pushed {
                true => [SP + 17, SP + 1, SP + 9],
                false => [19, SP + 0x100, 30],
            };
            assert_eq!([19, 29, 30].map(|n| caller.x[n]), kept.map(Some));
            assert_eq!(caller.pc, kept[2], "{offset:#x}");
            assert_eq!(caller.sp, Some(SP + if pushed { 32 } else { 0 }));
            assert_eq!(Some(cfa), caller.sp);
            assert_eq!((caller.x[20], caller.x[18]), (Some(20), None));
            assert!(!caller.interrupted);
        }
        for outside in [0, CODE - 1, CODE + 5 * SIZE, u64::MAX] {
            assert_eq!(frames.rules(outside), None, "{outside:#x}");
        }
    }
}

#[test]
fn rules_of_each_kind() {
    for mut frames in both() {
        let mut at = activation(CODE + SIZE);
        let found = caller(&mut frames, &at);
        let cfa = SP + 0x109;
        let Some(Caller::At(caller, found)) = found else {
            panic!("{found:?}");
        };
        assert_eq!((found, caller.pc), (cfa, cfa - 7));
        let registers = [29, 19, 20, 1, 21].map(|n| caller.x[n]);
        assert_eq!(
            registers,
            [Some(cfa + 8), Some(0), Some(cfa - 16), Some(1), None]
        );
        at.x[29] = Some(SP - 0x100);
        let found = self::caller(&mut frames, &at);
        assert_eq!(found, Some(Caller::Unknown), "there is no memory");
    }
}

#[test]
fn an_exception_has_what_it_interrupted() {
    for mut frames in both() {
        let at = activation(CODE + 2 * SIZE + 4);
        let Some(Caller::At(caller, cfa)) = caller(&mut frames, &at) else {
            panic!("all is known");
        };
        assert_eq!((caller.pc, cfa), (SP + 57, SP + 64));
        assert_eq!(caller.x[0], Some(SP + 1));
        assert_eq!(caller.x[30], Some(30), "nothing was called");
        // `.debug_frame` cannot say it in this version's way of writing.
        let signal = frames.rules(at.pc).expect("it is described").signal;
        assert_eq!(caller.interrupted, signal);
    }
}

#[test]
fn what_has_no_caller_or_no_end() {
    for mut frames in both() {
        let mut found = |at: Activation| caller(&mut frames, &at);
        assert_eq!(found(activation(CODE + 3 * SIZE)), Some(Caller::Outermost));
        assert_eq!(found(activation(CODE + 4 * SIZE)), Some(Caller::Unknown));
        let mut first = activation(CODE);
        first.x[30] = Some(0);
        assert_eq!(found(first), Some(Caller::Outermost));
        first.x[30] = None;
        assert_eq!(found(first), Some(Caller::Unknown));
        first.sp = None;
        first.x[30] = Some(RETURN);
        assert_eq!(found(first), Some(Caller::Unknown));
    }
}

#[test]
fn a_snapshot_has_the_same_answers() {
    let mut frames = in_eh_frame(&eh_frame());
    let places = [CODE, CODE + 0x10, CODE + SIZE, CODE + 2 * SIZE];
    let answers = places.map(|place| frames.rules(place));
    frames.rules(CODE - 4);
    let text = serde_json::to_string(&frames.notes()).expect("plain data");
    let notes: Vec<RulesAt> = serde_json::from_str(&text).expect("what was written");
    let mut again = CallFrames::recall(&notes);
    assert_eq!(places.map(|place| again.rules(place)), answers);
    assert_eq!(again.rules(CODE + 4), None, "nobody asked");
    assert_eq!(again.notes(), notes);
}

/// A part of the section that is damaged takes with it no more than what is behind it.
#[test]
fn what_is_before_the_damage_is_known() {
    let whole = debug_frame(4);
    for length in 0..whole.len() {
        let mut frames = in_debug_frame(&whole[..length]);
        let last = frames.rules(CODE + 4 * SIZE);
        assert_eq!(last, None, "{length}");
        if length > 100 {
            assert!(frames.rules(CODE).is_some(), "{length}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_answers(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        offset in 0..6 * SIZE,
    ) {
        for whole in [debug_frame(1), debug_frame(4), eh_frame(), noise] {
            let mut bytes = whole;
            for (at, byte) in &changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            for mut frames in [in_debug_frame(&bytes), in_eh_frame(&bytes)] {
                for place in [CODE + offset, offset] {
                    caller(&mut frames, &activation(place));
                }
            }
        }
    }

    /// Any expression ends, and asks for no more than it has operations.
    #[test]
    fn any_expression_ends(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut asked = 0;
        let rules = Rules {
            cfa: Cfa::Expression(bytes.clone()),
            registers: BTreeMap::from([(30, Rule::AtExpression(bytes.clone())), (29, Rule::Expression(bytes))]),
            return_address: 30,
            signal: false,
        };
        let Ok(_) = rules.caller(&activation(CODE), &mut |va| {
            asked += 1;
            word(va)
        });
        prop_assert!(asked < 4000);
    }
}
