//! The line to a client: QEMU's virtio console, polled.
//!
//! The queues are `virtio-drivers`', but not the console on top of them: that one needs a heap, borrows what it sends,
//! and waits for ever for a device that does not answer.

use core::ops::Range;
use core::ptr::{NonNull, read_volatile};

use hyp::addr::{PAGE_SIZE, Pa};
use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};

use super::dma::{self, Dma};
use crate::arch::read_register;
use crate::layout::va;

/// The first of QEMU's virtio-mmio transports, which follow each other.
const TRANSPORTS: Pa = Pa::new(0x0a00_0000);
const TRANSPORT_COUNT: u64 = 32;
const TRANSPORT_SIZE: u64 = 0x200;

// Registers of a transport, and what is in them: Virtual I/O Device 1.2, 4.2.2 and 5.3.
const DEVICE_ID: u64 = 0x08;
const CONSOLE: u32 = 3;
const INTERRUPT_STATUS: u64 = 0x60;

// The queues of a console's first port.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Of these entries one is in use at a time.
const QUEUE_SIZE: usize = 2;

/// QEMU never gives more at once.
const INPUT_PAGES: usize = 1;
/// QEMU drops what its socket does not take at once: a reply of 64 KiB fits into one.
const OUTPUT_PAGES: usize = 16;
/// Pages for buffers.
pub(super) const PAGES: usize = INPUT_PAGES + OUTPUT_PAGES;

/// A console for one port, on which nobody else works.
///
/// While the machine runs, bit 0 of the register at [`Console::status`] says that bytes have come. Then, in this order:
/// [`Console::acknowledge`], then [`Console::receive`] until there is nothing more, then let the machine run. Bytes that
/// come in between are received, or set the bit again; at worst it is set although they were received already.
pub(crate) struct Console {
    transport: Pa,
    device: MmioTransport<'static>,
    receiving: VirtQueue<Dma, QUEUE_SIZE>,
    sending: VirtQueue<Dma, QUEUE_SIZE>,
    input: &'static mut [u8],
    /// While the device has `input`.
    offered: Option<u16>,
    /// What the device put into `input` and nobody has received.
    unread: Range<usize>,
    output: &'static mut [u8],
    /// While the device has so much of `output`.
    sent: Option<(u16, usize)>,
}

impl Console {
    /// Takes the first console on QEMU's command line: QEMU fills transports from the last one down. The devices must
    /// be mapped at the fixed offset, as they are from boot on. Once only: there is no memory for a second one.
    pub(crate) fn find() -> Option<Self> {
        let transport = |index| TRANSPORTS.wrapping_add(index * TRANSPORT_SIZE);
        (0..TRANSPORT_COUNT)
            .rev()
            .find_map(|index| Self::open(transport(index)))
    }

    fn open(transport: Pa) -> Option<Self> {
        // SAFETY: QEMU's `virt` has transports here, with or without a device; reading which one changes nothing.
        let id = unsafe { read_volatile(register(transport, DEVICE_ID)) };
        if id != CONSOLE {
            return None;
        }
        let header = NonNull::new(register(transport, 0).cast_mut())?.cast::<VirtIOHeader>();
        // SAFETY: as above; it stays mapped, and nobody else uses it.
        let device = unsafe { MmioTransport::new(header, TRANSPORT_SIZE as usize) };
        let mut device = device.ok()?;
        // Which a device has that is not of the legacy kind, and then must be accepted.
        device.begin_init(Feature::VERSION_1);
        let receiving = VirtQueue::new(&mut device, RECEIVE, false, false).ok()?;
        let mut sending = VirtQueue::new(&mut device, TRANSMIT, false, false).ok()?;
        // The status is to say that bytes have come, and not that some were sent.
        sending.set_dev_notify(false);
        device.finish_init();
        let mut console = Self {
            transport,
            device,
            receiving,
            sending,
            input: dma::take(INPUT_PAGES)?,
            offered: None,
            unread: 0..0,
            output: dma::take(OUTPUT_PAGES)?,
            sent: None,
        };
        console.offer();
        Some(console)
    }

    /// The page that its registers are in, with those of seven other transports.
    pub(crate) fn page(&self) -> Pa {
        self.transport.page()
    }

    /// The register InterruptStatus, which may be read at any time.
    pub(crate) fn status(&self) -> *const u32 {
        register(self.transport, INTERRUPT_STATUS)
    }

    /// Clears the status.
    pub(crate) fn acknowledge(&mut self) {
        self.device.ack_interrupt();
    }

    /// The next byte, if one has come.
    pub(crate) fn receive(&mut self) -> Option<u8> {
        if self.unread.is_empty() {
            self.offer();
            self.take_input();
        }
        self.input.get(self.unread.next()?).copied()
    }

    /// Gives the device `input` to fill, unless it has it.
    fn offer(&mut self) {
        if self.offered.is_some() {
            return;
        }
        // SAFETY: `input` is not touched until `take_input` has it back.
        self.offered = unsafe { self.receiving.add(&[], &mut [self.input]) }.ok();
        if self.receiving.should_notify() {
            self.device.notify(RECEIVE);
        }
    }

    /// Takes `input` back if the device has put something into it.
    fn take_input(&mut self) {
        if let Some(token) = self.offered
            && self.receiving.peek_used() == Some(token)
        {
            // SAFETY: this is the buffer that was offered.
            let received = unsafe { self.receiving.pop_used(token, &[], &mut [self.input]) };
            self.offered = None;
            self.unread = 0..received.map_or(0, |bytes| bytes as usize);
        }
    }

    /// Sends bytes. They are lost where nobody listens, and where the device does not take them within a second.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(OUTPUT_PAGES * PAGE_SIZE as usize) {
            if !self.take_output() {
                return;
            }
            self.output[..piece.len()].copy_from_slice(piece);
            let output = &self.output[..piece.len()];
            // SAFETY: `output` is not touched until `take_output` has it back.
            let token = unsafe { self.sending.add(&[output], &mut []) };
            self.sent = token.ok().map(|token| (token, piece.len()));
            if self.sending.should_notify() {
                self.device.notify(TRANSMIT);
            }
        }
        self.take_output();
    }

    /// Takes `output` back, for which it waits a second at most.
    fn take_output(&mut self) -> bool {
        let start = read_register!(cntpct_el0);
        while let Some((token, bytes)) = self.sent {
            if self.sending.peek_used() == Some(token) {
                // SAFETY: this is what was sent.
                let _ = unsafe {
                    self.sending
                        .pop_used(token, &[&self.output[..bytes]], &mut [])
                };
                self.sent = None;
            } else if read_register!(cntpct_el0).wrapping_sub(start) > read_register!(cntfrq_el0) {
                return false;
            }
        }
        true
    }
}

/// Where a register of a transport is mapped.
fn register(transport: Pa, offset: u64) -> *const u32 {
    va(transport.wrapping_add(offset)).get() as *const u32
}
