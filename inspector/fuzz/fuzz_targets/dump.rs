//! Any bytes are a memory dump or an error; of what is a dump everything can be asked.
#![no_main]

use inspector::addr::Span;
use inspector::target::Target;
use inspector::target::dump::Dump;
use libfuzzer_sys::fuzz_target;
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("a folder for temporary files");
    file.write_all(bytes).expect("room for it");
    let Ok(Some(mut dump)) = Dump::open("fuzz", file) else {
        return;
    };
    let cpus = dump.cpu_count().unwrap_or(0);
    for cpu in 0..=cpus {
        let _ = dump.registers(cpu);
    }
    let ram = dump.ram().ok().flatten().unwrap_or_default();
    for span in ram {
        let _ = dump.read_phys(&[span, Span::new(span.start, span.size.min(4096))]);
    }
});
