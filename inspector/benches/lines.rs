//! How long a source line of a kernel takes when it is asked for, and what memory.
//!
//! `cargo bench -p inspector --bench lines`
//!
//! Of the two times the second is what this thread spent on a CPU: it is the same on a busy computer.

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

/// What something took: wall time, and time on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Took {
    cpu: Duration,
    wall: Duration,
}

/// How long this thread has been on a CPU, by the first number of `/proc/self/schedstat`.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let number = text.split_whitespace().next();
    Duration::from_nanos(number.and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn took<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (start, before) = (Instant::now(), on_cpu());
    let answer = work();
    let took = Took {
        cpu: on_cpu().saturating_sub(before),
        wall: start.elapsed(),
    };
    (answer, took)
}

fn row(kernel: Kernel, what: &str, took: Took) {
    let [wall, cpu] = [took.wall, took.cpu].map(|time| time.as_secs_f64() * 1e3);
    let (name, now, peak) = (kernel.name(), memory("VmRSS"), memory("VmHWM"));
    println!("{name:<10} {what:<48}{wall:>8.1} ms{cpu:>8.1} ms{now:>6.0} MiB{peak:>6.0} MiB");
}

fn main() {
    println!(
        "{:>70}{:>11}{:>10}{:>10}",
        "time", "on a CPU", "memory", "peak"
    );
    for kernel in Kernel::ALL {
        let files = kernel
            .files()
            .expect("`cargo fixtures setup` says what is missing");
        let vmlinux = [files.vmlinux];
        let ((mut images, symbols), opened) = took(|| {
            let mut images = Images::open(&vmlinux).expect("it is a kernel");
            let symbols = images.symbols();
            (images, symbols)
        });
        row(kernel, "open: its symbols", opened);

        let abort = symbols
            .iter()
            .find(|symbol| symbol.name == "__kvm_nvhe_handle_host_mem_abort");
        let abort = abort.expect("it is a host's").address;
        let (lines, first) = took(|| images.functions(abort + 0x60));
        assert!(!lines.is_empty());
        row(kernel, "the first line", first);

        let functions: Vec<_> = symbols.iter().filter(|symbol| symbol.size > 16).collect();
        let chosen = functions.iter().step_by(functions.len() / LOOKUPS);
        let mut times = Vec::new();
        let mut found = 0;
        for symbol in chosen {
            let (lines, took) = took(|| images.functions(symbol.address + 8));
            found += usize::from(!lines.is_empty());
            times.push(took);
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
