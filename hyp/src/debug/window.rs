//! Writers that keep only a part of what is written to them: text of any length without a heap.

use core::fmt;

/// Keeps the bytes from an offset on until its buffer is full, and lets all others pass.
///
/// This is how a generated file is read at an offset: generate all of it, keep what was asked for.
#[derive(Debug)]
pub struct Window<'a> {
    /// Bytes still to be passed over before the first that is kept.
    skip: u64,
    buffer: &'a mut [u8],
    kept: usize,
}

impl<'a> Window<'a> {
    /// A window on what will be written, `offset` bytes from its start.
    pub fn new(offset: u64, buffer: &'a mut [u8]) -> Self {
        Self {
            skip: offset,
            buffer,
            kept: 0,
        }
    }

    /// How many bytes were kept.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Nothing more will be kept: writing on is wasted work.
    pub fn is_full(&self) -> bool {
        self.kept == self.buffer.len()
    }

    /// Passes over `size` bytes that need not be generated, when they all lie before the window.
    pub fn pass(&mut self, size: u64) -> bool {
        let before = size <= self.skip;
        if before {
            self.skip -= size;
        }
        before
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        let rest = &bytes[skipped..];
        let room = &mut self.buffer[self.kept..];
        let taken = rest.len().min(room.len());
        room[..taken].copy_from_slice(&rest[..taken]);
        self.kept += taken;
    }
}

impl fmt::Write for Window<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        // A full window ends the generation early.
        if self.is_full() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// Collects text into lines: without a heap every fragment that gdb's console gets is a packet.
pub struct Lines<F: FnMut(&[u8])> {
    line: [u8; 256],
    length: usize,
    emit: F,
}

impl<F: FnMut(&[u8])> Lines<F> {
    /// Gives each line, with its line feed, to `emit`; a line beyond 256 bytes comes in pieces.
    pub fn new(emit: F) -> Self {
        Self {
            line: [0; 256],
            length: 0,
            emit,
        }
    }

    /// Gives out what is left.
    pub fn flush(&mut self) {
        if self.length > 0 {
            (self.emit)(&self.line[..self.length]);
            self.length = 0;
        }
    }
}

impl<F: FnMut(&[u8])> fmt::Write for Lines<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.line[self.length] = byte;
            self.length += 1;
            if byte == b'\n' || self.length == self.line.len() {
                self.flush();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use proptest::prelude::*;
    use std::prelude::rust_2024::*;

    proptest! {
        /// However a text is cut into writes, a window holds what a slice of the whole would.
        #[test]
        fn window_is_a_slice(
            pieces in prop::collection::vec("[a-z]{0,9}", 0..12),
            offset in 0u64..80,
            size in 0usize..40,
        ) {
            let text = pieces.concat();
            let mut buffer = vec![0; size];
            let mut window = Window::new(offset, &mut buffer);
            for piece in &pieces {
                let _ = window.write_str(piece);
            }
            let kept = window.kept();
            let start = (offset as usize).min(text.len());
            let end = (start + size).min(text.len());
            prop_assert_eq!(&buffer[..kept], &text.as_bytes()[start..end]);
        }
    }

    #[test]
    fn offsets_beyond_the_end_keep_nothing() {
        let mut buffer = [0; 4];
        let mut window = Window::new(u64::MAX, &mut buffer);
        window.write(b"abc");
        assert_eq!(window.kept(), 0);
        assert!(!window.is_full());
    }

    #[test]
    fn passing_over_equals_writing_before_the_window() {
        let mut buffer = [0; 2];
        let mut window = Window::new(5, &mut buffer);
        assert!(window.pass(5));
        assert!(!window.pass(1), "the next byte is inside the window");
        window.write(b"xyz");
        assert_eq!(&buffer, b"xy");
    }

    #[test]
    fn lines_come_whole() {
        let mut lines = Vec::new();
        let mut writer = Lines::new(|line: &[u8]| lines.push(line.to_vec()));
        write!(writer, "a {} c\nrest", 1).unwrap();
        writer.flush();
        assert_eq!(lines, [b"a 1 c\n".to_vec(), b"rest".to_vec()]);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let mut sizes = Vec::new();
        let mut writer = Lines::new(|line: &[u8]| sizes.push(line.len()));
        writer.write_str(&"x".repeat(600)).unwrap();
        writer.flush();
        assert_eq!(sizes, [256, 256, 88]);
    }
}
