//! Source lines and inlined functions of the places where CPUs are.

use crate::image::Images;
use crate::model::{Frame, Source, Symbols, System};

/// An instruction's size in bytes: a call stands so far before the place that it returns to.
const CALL: u64 = 4;

/// Adds to a capture what the files of its programs say of the places where CPUs are and will return to: the lines, and
/// the functions that were inlined there as frames of their own.
pub fn add_lines(system: &mut System, images: &mut Images) {
    let symbols = &system.symbols;
    for cpu in &mut system.cpus {
        if let Some(pc) = cpu.pc {
            let here = Frame::interrupted(pc, cpu.symbol.take());
            let mut frames = expand(here, symbols, images);
            if let Some(here) = frames.pop() {
                cpu.symbol = here.symbol;
                cpu.source = here.source;
            }
            cpu.inlines = frames;
        }
        let calls = std::mem::take(&mut cpu.calls).into_iter();
        let calls = calls.filter(|frame| !frame.inlined);
        cpu.calls = calls
            .flat_map(|frame| expand(frame, symbols, images))
            .collect();
    }
}

/// A frame with its line, and before it what was inlined there.
fn expand(mut frame: Frame, symbols: &Symbols, images: &mut Images) -> Vec<Frame> {
    let place = match frame.interrupted {
        true => frame.pc,
        false => frame.pc.wrapping_sub(CALL),
    };
    // What has no name is no code of ours: a user's, a guest's.
    let named = frame.symbol.is_some();
    let linked = symbols.linked_address(place).filter(|_| named);
    let Some((last, inlined)) = linked.and_then(|linked| images.functions(linked).split_last())
    else {
        return vec![frame];
    };
    let source = |source: &Option<Source>| source.clone();
    frame.source = source(&last.source);
    let inlined = inlined.iter().map(|function| Frame {
        symbol: function.name.clone(),
        source: source(&function.source),
        inlined: true,
        ..frame.clone()
    });
    let mut frames: Vec<_> = inlined.collect();
    frames.push(frame);
    frames
}
