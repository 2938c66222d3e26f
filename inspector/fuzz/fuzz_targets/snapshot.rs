//! Any bytes are a snapshot or an error; of what is a snapshot everything can be asked.
#![no_main]

use inspector::addr::Span;
use inspector::target::Target;
use inspector::target::snapshot::Snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: Vec<u8>| {
    let Ok(mut snapshot) = Snapshot::from_bytes("fuzz", bytes) else {
        return;
    };
    let cpus = snapshot.cpu_count().unwrap_or(0);
    for cpu in 0..=cpus {
        let _ = snapshot.registers(cpu);
    }
    let ram = snapshot.ram().ok().flatten().unwrap_or_default();
    for span in ram {
        let _ = snapshot.read_phys(&[Span::new(span.start, span.size.min(4096))]);
    }
});
