//! hyp's own gdb channel.
#![expect(dead_code, reason = "the debugger that uses these comes next")]

mod console;
mod dma;
mod symbols;
