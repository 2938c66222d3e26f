//! Keeping hyp's static in simulated RAM what the library's objects are.

use super::layout::{self, MEMBERS, Pools, REGIONS, RELEASE, SECTION_LIST, SECTION_SIZE};
use super::ram::Ram;
use crate::addr::PageRange;
use crate::init::Hyp;
use crate::lock::TicketLock;
use crate::pool::{PageRecord, Pool};
use std::prelude::rust_2024::*;

/// Writes what never changes: text, and the lists in rodata.
pub(super) fn publish_constants(hyp: &Hyp<'_>, ram: &mut Ram) {
    // NOP, hint #0.
    let nop = 0xd503_201f_u32.to_le_bytes();
    for code in layout::CODE {
        for pa in (code.base..code.end()).step_by(nop.len()) {
            ram.write(pa, &nop);
        }
    }
    for (i, region) in hyp.regions().iter().enumerate() {
        write_range(ram, REGIONS + i as u64 * 16, *region);
    }
    for (i, section) in hyp.sections().iter().enumerate() {
        let at = SECTION_LIST + i as u64 * SECTION_SIZE;
        ram.write(at, &[section.kind as u8]);
        write_range(ram, at + 8, section.range);
    }
    ram.write(RELEASE, hyp.release().as_bytes());
}

fn write_range(ram: &mut Ram, pa: u64, range: PageRange<crate::addr::Pa>) {
    ram.write(pa, &range.base().get().to_le_bytes());
    ram.write(pa + 8, &range.size().to_le_bytes());
}

/// Writes the members of `HYP` and the pools' records.
pub(super) fn publish(hyp: &Hyp<'_>, pools: &Pools, ram: &mut Ram) {
    for (member, value) in MEMBERS.iter().zip(values(hyp, pools)) {
        let bytes: Vec<u8> = value.iter().flat_map(|word| word.to_le_bytes()).collect();
        ram.write(member.pa(), &bytes[..member.kind.size() as usize]);
    }
    publish_records(ram, pools.host_records, hyp.host().pool());
    publish_records(ram, pools.hyp_records, hyp.hyp().pool());
}

/// The values of [`MEMBERS`], in their order; those of less than two words in the low bytes.
fn values(hyp: &Hyp<'_>, pools: &Pools) -> [[u64; 2]; MEMBERS.len()] {
    let (host_pool, hyp_pool) = (hyp.host().pool(), hyp.hyp().pool());
    let pointer = |pa: u64, count: u64| [pa.wrapping_sub(hyp.physvirt_offset()), count];
    [
        lock(hyp.host().lock()),
        [hyp.host().root().get(), 0],
        lock(host_pool.lock()),
        [host_pool.base().get(), 0],
        [host_pool.pages(), 0],
        pointer(pools.host_records, host_pool.pages()),
        lock(hyp.hyp().lock()),
        [hyp.hyp().root().get(), 0],
        lock(hyp_pool.lock()),
        [hyp_pool.base().get(), 0],
        [hyp_pool.pages(), 0],
        pointer(pools.hyp_records, hyp_pool.pages()),
        [hyp.physvirt_offset(), 0],
        pointer(REGIONS, hyp.regions().len() as u64),
        pointer(SECTION_LIST, hyp.sections().len() as u64),
        [hyp.profile() as u64, 0],
        [u64::from(hyp.is_finalised()), 0],
        [u64::from(hyp.cpus()), 0],
        pointer(RELEASE, hyp.release().len() as u64),
    ]
}

/// A lock as its 16 bytes are.
fn lock(lock: &TicketLock) -> [u64; 2] {
    let state = lock.state();
    let tickets = u64::from(state.owner) | u64::from(state.next) << 16;
    [tickets | u64::from(state.holder) << 32, state.taker]
}

fn publish_records(ram: &mut Ram, pa: u64, pool: &Pool<'_>) {
    let bytes: Vec<u8> = pool
        .records()
        .iter()
        .map(PageRecord::refcount)
        .flat_map(u16::to_le_bytes)
        .collect();
    ram.write(pa, &bytes);
}
