//! How fast physical memory comes through QEMU's gdb server: requests pipelined, and one by one.
//!
//! `cargo bench -p inspector --bench gdb`

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use inspector::addr::Span;
use inspector::target;
use std::time::Duration;

/// Where `virt` has its RAM.
const RAM: u64 = 0x4000_0000;
/// What QEMU reads at once.
const CHUNK: u64 = 0x800;

fn reads(criterion: &mut Criterion) {
    let mut machine = fixtures::Boot::hyp()
        .and_then(|boot| boot.start())
        .expect("hyp does not boot: `cargo fixtures setup` says what is missing");
    machine
        .wait_for("host stage 2 on", Duration::from_secs(60))
        .expect("hyp does not come up");
    let mut target = target::open(machine.gdb(), Duration::from_secs(30))
        .expect("QEMU's gdb server does not answer");
    let mut group = criterion.benchmark_group("QEMU's gdb server");
    for size in [0x1_0000, 0x10_0000] {
        let chunks: Vec<_> = (0..size / CHUNK)
            .map(|n| Span::new(RAM + n * CHUNK, CHUNK))
            .collect();
        group.throughput(Throughput::Bytes(size));
        group.bench_function(BenchmarkId::new("pipelined", size), |bench| {
            bench.iter(|| target.read_phys(&[Span::new(RAM, size)]));
        });
        group.bench_function(BenchmarkId::new("one by one", size), |bench| {
            bench.iter(|| {
                chunks
                    .iter()
                    .map(|chunk| target.read_phys(&[*chunk]))
                    .filter(Result::is_ok)
                    .count()
            });
        });
    }
}

criterion_group!(benches, reads);
criterion_main!(benches);
