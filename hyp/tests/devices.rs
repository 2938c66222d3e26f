//! Devices that are hyp's alone: the host is refused there, whatever happens around them.

mod common;

use common::{DEVICE, FREE, MIB, OWN_DEVICES, Setup};
use hyp::abort::Outcome;
use hyp::addr::{PAGE_SIZE, Pa};
use hyp::errno::Errno;
use hyp::init::{InitError, SectionKind};
use hyp::stats::Event;

const EINVAL: i64 = -22;
/// The host's entry for a page hyp owns.
const OWNED_BY_HYP: (u64, u8) = (0x4, 3);
/// Read and write, execute never.
const MMIO_PAGE: u64 = 0x0040_0000_0000_07ff;
const MMIO_BLOCK: u64 = 0x0040_0000_0000_07fd;

#[test]
fn the_host_is_refused_and_may_not_share_them() {
    let machine = Setup::with_own_devices().start();
    let before = machine.contents();
    for page in OWN_DEVICES {
        assert_eq!(machine.host(page), OWNED_BY_HYP, "{page:#x}");
        assert_eq!(
            machine
                .hyp
                .host_stage2_idmap(machine.cpu(), Pa::new(page + 0xe00)),
            Err(Errno::Perm),
            "{page:#x}"
        );
        assert!(
            matches!(machine.touch(page + 0xe00), Outcome::Inject(_)),
            "{page:#x}"
        );
        assert_eq!(machine.share(page), EINVAL, "{page:#x}");
    }
    assert_eq!(machine.hyp.stats().get(Event::AbortRefused), 2);
    assert_eq!(machine.contents(), before);
}

/// The largest block that holds nothing of hyp's, as everywhere.
#[test]
fn what_is_around_them_is_mapped_when_it_is_touched() {
    let machine = Setup::with_own_devices().start();
    let around = [
        (0x0a00_2ff8, (0x0a00_2000 | MMIO_PAGE, 3)),
        (0x0a00_4000, (0x0a00_4000 | MMIO_PAGE, 3)),
        (DEVICE, (DEVICE | MMIO_BLOCK, 2)),
        (0x0a20_0000, (0x0a20_0000 | MMIO_BLOCK, 2)),
        // The bank's last page, and the gap up to the page and after it.
        (0x5068_6000, (0x5068_67ff, 3)),
        (0x5068_8000, (0x5068_8000 | MMIO_PAGE, 3)),
        (0x5068_a000, (0x5068_a000 | MMIO_PAGE, 3)),
        (0x5080_0000, (0x5080_0000 | MMIO_BLOCK, 2)),
    ];
    for (address, leaf) in around {
        assert_eq!(machine.touch(address), Outcome::Resume, "{address:#x}");
        assert_eq!(machine.host(address), leaf, "{address:#x}");
    }
    for page in OWN_DEVICES {
        assert_eq!(machine.host(page), OWNED_BY_HYP, "{page:#x}");
    }
    machine.check_host_tables();
}

/// A dry pool takes back what is not RAM: what the host has mapped, in the same tables even, but not what is hyp's.
#[test]
fn they_stay_hyps_when_a_dry_pool_takes_the_hosts_devices_back() {
    let free = |host_pool| {
        let setup = Setup {
            host_pool,
            ..Setup::with_own_devices()
        };
        let machine = setup.start();
        (machine.hyp.host().pool().free_pages(), machine)
    };
    let (spare, _) = free(64);
    let (spare, machine) = free(64 - spare);
    assert_eq!(spare, 0);
    let after_start = machine.contents();
    let neighbours = [
        OWN_DEVICES[0] + PAGE_SIZE,
        OWN_DEVICES[1] + PAGE_SIZE,
        DEVICE,
    ];
    for address in neighbours {
        assert_eq!(machine.touch(address), Outcome::Resume, "{address:#x}");
    }

    // It needs a table, and the host's devices are in tables that hyp's need, too: there is no page for one.
    let result = {
        let _host = machine.hyp.lock_host(machine.cpu());
        let page = common::page(FREE);
        machine
            .hyp
            .host_stage2_idmap_locked(machine.cpu(), page, hyp::desc::Prot::R)
    };
    assert_eq!(result, Err(Errno::NoMem));

    assert_eq!(machine.hyp.stats().get(Event::PoolRetry), 1);
    assert_eq!(machine.contents(), after_start, "annotations and all");
    for page in OWN_DEVICES {
        assert!(
            matches!(machine.touch(page), Outcome::Inject(_)),
            "{page:#x}"
        );
    }
    for address in neighbours {
        assert_eq!(machine.touch(address), Outcome::Resume, "{address:#x}");
    }
    machine.check_host_tables();
}

/// Several pages at once, and one that the host's stage 2 cannot say anything about.
#[test]
fn they_are_whole_ranges_within_the_hosts_addresses() {
    let start = |base, size| {
        let mut setup = Setup::default();
        setup.host_geometry.ia_bits = 37;
        setup.sections.push((SectionKind::OwnDevice, base, size));
        let machine = setup.build().unwrap();
        machine.hyp.init(machine.cpu()).unwrap();
        let result = machine.hyp.finalise(machine.cpu());
        (machine, result)
    };
    let (machine, result) = start(0x0bff_f000, 2 * MIB);
    assert_eq!(result, Ok(()));
    for page in (0x0bff_f000..0x0c1f_f000).step_by(PAGE_SIZE as usize) {
        assert_eq!(machine.host(page), OWNED_BY_HYP, "{page:#x}");
    }
    assert_eq!(machine.host(0x0bff_e000), (0, 3));
    assert_eq!(machine.host(0x0c1f_f000), (0, 3));

    let (_, result) = start((1 << 37) - PAGE_SIZE, PAGE_SIZE);
    assert_eq!(result, Ok(()));
    let (_, result) = start(1 << 37, PAGE_SIZE);
    assert_eq!(result, Err(InitError::HostMappings(Errno::Range)));
}
