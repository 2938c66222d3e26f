//! gdb, which follows an abort as somebody would by hand. It is given no file, so that it looks for no names.

use crate::tap::MARK;
use crate::{Path, Taken, Wanted};
use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// More instructions than an abort takes.
const MAX_STEPS: u64 = 20_000;
/// What has to be known at the entry and at the end.
const REGISTERS: &str = "pc cpsr ESR_EL2 FAR_EL2 HPFAR_EL2 ELR_EL2 SPSR_EL2 VTTBR_EL2";

/// Steps from the entry to the end, and has each instruction shown.
pub(crate) const STEPS: &str = "\
display/i $pc
while $pc != $end && $count < $most
  stepi
  set $count = $count + 1
end
";

/// Stops at the same functions as the inspector.
pub(crate) const FUNCTIONS: &str = "\
while $pc != $end && $count < $most
  continue
  info registers
  x/i $pc
  set $count = $count + 1
end
";

/// Runs to the next abort that is wanted and follows it.
pub(crate) fn follow(address: &str, wanted: &Wanted, path: &Path, way: &str) -> Taken {
    let script = script(address, wanted, path, way);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &script).expect("there is room");
    let start = SystemTime::now();
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-x"]).arg(file.path());
    let output = gdb.output().expect("`cargo fixtures setup` installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            panic!("gdb says no {name}\n{script}\n{text}\n{errors}")
        })
    };
    let since_start = start.duration_since(SystemTime::UNIX_EPOCH);
    let since_start = since_start.expect("it is later than 1970").as_secs_f64();
    let stops = figure("COUNT") as u64;
    assert!(stops < MAX_STEPS, "gdb came to no end:\n{text}");
    Taken {
        ready: Duration::from_secs_f64(figure("READY") - since_start),
        abort: Duration::from_secs_f64(figure("TOOK")),
        stops,
    }
}

fn script(address: &str, wanted: &Wanted, path: &Path, way: &str) -> String {
    let (first, end) = (wanted.ipa.start, wanted.ipa.start + wanted.ipa.size);
    let mut functions = String::new();
    if way == FUNCTIONS {
        for address in path.functions.iter().chain([&path.exit]) {
            let _ = writeln!(functions, "break *{address:#x}");
        }
    }
    format!(
        "\
set pagination off
set confirm off
set style enabled off
python import time
target remote {socket}
set $count = 0
set $most = {MAX_STEPS}
set $end = {exit:#x}
# ESR_EL2.EC is 0x20 or 0x24, and HPFAR_EL2 has bits 47:12 of the IPA from bit 4 on.
break *{entry:#x} if ($ESR_EL2 >> 26 & 0x3b) == 0x20 && (($HPFAR_EL2 & ~0xf) << 8) >= {first:#x} && (($HPFAR_EL2 & ~0xf) << 8) < {end:#x}
python print('READY', time.time())
continue
delete
maintenance packet {MARK}
python start = time.perf_counter()
{functions}info registers {REGISTERS}
{way}info registers {REGISTERS}
python print('TOOK', time.perf_counter() - start)
maintenance packet {MARK}
printf \"COUNT %d\\n\", $count
disconnect
",
        socket = address.trim_start_matches("unix:"),
        entry = path.entry,
        exit = path.exit,
    )
}
