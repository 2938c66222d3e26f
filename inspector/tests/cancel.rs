//! Ctrl-C while a server is silent. The flag is the process's, so this test has a file of its own.

use inspector::target::{self, TargetError};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn cancellation_ends_a_wait_before_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent");
    let listener = UnixListener::bind(&path).unwrap();
    let name = format!("unix:{}", path.display());
    let client = std::thread::spawn(move || target::open(&name, Duration::from_secs(3600)).err());
    // Held open and never answered.
    let connection = listener.accept().unwrap();
    target::cancellation().store(true, Ordering::Relaxed);
    let error = client.join().unwrap().unwrap();
    assert!(matches!(error, TargetError::Cancelled { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("interrupted while greeting the gdb server")
    );
    drop(connection);
}
