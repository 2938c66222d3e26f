//! How long a source line of a kernel takes when it is asked for, and what memory.
//!
//! `cargo bench -p inspector --bench lines`

use fixtures::kernels::Kernel;
use inspector::image::Images;
use std::time::{Duration, Instant};

/// How many functions are looked up, from all over the kernel.
const LOOKUPS: usize = 500;

/// MiB that this process has, by `/proc/self/status`.
fn memory(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    let kib: f64 = number.and_then(|number| number.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

fn row(kernel: Kernel, what: &str, time: Duration) {
    let ms = time.as_secs_f64() * 1e3;
    let (name, now, peak) = (kernel.name(), memory("VmRSS"), memory("VmHWM"));
    println!("{name:<10} {what:<48}{ms:>8.1} ms{now:>6.0} MiB{peak:>6.0} MiB");
}

fn main() {
    println!("{:>70}{:>10}{:>10}", "time", "memory", "peak");
    for kernel in Kernel::ALL {
        let files = kernel
            .files()
            .expect("`cargo fixtures setup` says what is missing");
        let start = Instant::now();
        let mut images = Images::open(&[files.vmlinux]).expect("it is a kernel");
        let symbols = images.symbols();
        row(kernel, "open: its symbols", start.elapsed());

        let abort = symbols
            .iter()
            .find(|symbol| symbol.name == "__kvm_nvhe_handle_host_mem_abort");
        let abort = abort.expect("it is a host's").address;
        let start = Instant::now();
        assert!(!images.functions(abort + 0x60).is_empty());
        row(kernel, "the first line", start.elapsed());

        let functions: Vec<_> = symbols.iter().filter(|symbol| symbol.size > 16).collect();
        let chosen = functions.iter().step_by(functions.len() / LOOKUPS);
        let mut times = Vec::new();
        let mut found = 0;
        for symbol in chosen {
            let start = Instant::now();
            let lines = images.functions(symbol.address + 8);
            found += usize::from(!lines.is_empty());
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let what = format!("a line of another file: median of {}", times.len());
        row(kernel, &what, times[times.len() / 2]);
        row(
            kernel,
            "a line of another file: the slowest",
            times[times.len() - 1],
        );
        println!(
            "{:<10} {found} of {} symbols have lines (data has none)",
            kernel.name(),
            times.len()
        );
    }
}
