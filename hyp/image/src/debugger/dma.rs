//! Memory that the device of hyp's channel reads and writes.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use hyp::addr::Pa;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::layout::{OFFSET, va};

/// The rings of two queues, and what a console takes besides.
const PAGES: usize = 2 * RING_PAGES + super::console::PAGES;
/// A queue of few entries has one page for what the device reads, and one for what it writes.
const RING_PAGES: usize = 2;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[[u8; PAGE_SIZE]; PAGES]>);

// SAFETY: `take` gives each page to one caller only.
unsafe impl Sync for Arena {}

#[unsafe(link_section = ".bss.debugger")]
static ARENA: Arena = Arena(UnsafeCell::new([[0; PAGE_SIZE]; PAGES]));

/// How many pages of [`ARENA`] are given away.
#[unsafe(link_section = ".bss.debugger")]
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Pages that are zero and the caller's alone, for ever.
pub(super) fn take(pages: usize) -> Option<&'static mut [u8]> {
    let more = |taken: usize| taken.checked_add(pages).filter(|taken| *taken <= PAGES);
    let first = TAKEN
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .ok()?;
    let start = ARENA.0.get().cast::<u8>();
    // SAFETY: `first` to `first + pages` are inside the arena and are given to nobody else; .bss is zero.
    Some(unsafe {
        core::slice::from_raw_parts_mut(start.add(first * PAGE_SIZE), pages * PAGE_SIZE)
    })
}

/// The physical address of memory of the arena: unlike a stack, that is mapped at the fixed offset.
fn pa(memory: NonNull<u8>) -> Pa {
    let address = memory.as_ptr() as u64;
    let offset = address.wrapping_sub(ARENA.0.get() as u64);
    assert!(
        offset < (PAGES * PAGE_SIZE) as u64,
        "{address:#x} is no memory for devices"
    );
    Pa::new(address.wrapping_sub(OFFSET))
}

/// How the driver gets at memory that the device uses, too. QEMU's devices see the caches.
pub(super) enum Dma {}

// SAFETY: pages come from `take`. Their physical addresses are those of the fixed offset, at which they are mapped
// from boot on; so are devices.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // An address of 0 tells the driver that there is none.
        take(pages).map_or((0, NonNull::dangling()), |memory| {
            let memory = NonNull::from(memory).cast();
            (pa(memory).get(), memory)
        })
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // Of a console that could not be set up. Its pages stay unused.
        0
    }

    // Only for devices on PCI.
    unsafe fn mmio_phys_to_virt(device: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(va(Pa::new(device)).get() as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(memory: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        pa(memory.cast()).get()
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
