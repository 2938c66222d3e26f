//! hyp's own gdb channel.

mod symbols;
