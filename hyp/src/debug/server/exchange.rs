//! One request and its reply through gdbstub.
//!
//! gdbstub ends its session at the first request that it cannot read, and that takes with it what the client had
//! selected. So gdbstub gets a new session for each request, in which the selection is made anew.

use super::outgoing::Outgoing;
use super::request::{Scratch, format};
use super::{EINVAL, FRAME_SIZE, Line};
use crate::debug::Inferior;
use crate::debug::stub::{Stub, errno};
use gdbstub::conn::Connection;
use gdbstub::stub::GdbStub;
use gdbstub::stub::state_machine::GdbStubStateMachine;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was answered.
    Answered,
    /// The machine is to run; the answer is due when it stops.
    Resumed,
}

/// Has a request answered for whom `thread` is selected.
///
/// # Errors
/// The number of an error; nothing was sent then.
pub(super) fn exchange<I: Inferior, L: Line>(
    stub: &mut Stub<I>,
    thread: usize,
    buffer: &mut [u8],
    out: &mut Outgoing<'_, L>,
    request: &[u8],
) -> Result<Outcome, u8> {
    let mut scratch: Scratch = [0; 64];
    let select = format(&mut scratch, format_args!("Hg{thread:x}"));
    out.hide(1);
    // gdbstub looks for the end of a checksum, which it has no use for, in the rest of its buffer. It finds one here.
    for body in [select, request] {
        if let Some(behind) = buffer.get_mut(body.len() + FRAME_SIZE) {
            *behind = b'#';
        }
    }
    // Neither fails: there is a buffer, and the target takes software breakpoints.
    let builder = GdbStub::builder(out).with_packet_buffer(buffer);
    let session = builder.build().map_err(|_| EINVAL)?;
    let session = session.run_state_machine(stub).map_err(|_| EINVAL)?;
    let session = feed(session, stub, select)?;
    match feed(session, stub, request)? {
        GdbStubStateMachine::Running(_) => Ok(Outcome::Resumed),
        _ => Ok(Outcome::Answered),
    }
}

/// Gives gdbstub a packet; all but the last byte leave it idle.
fn feed<'a, I: Inferior, C: Connection>(
    mut session: GdbStubStateMachine<'a, Stub<I>, C>,
    stub: &mut Stub<I>,
    body: &[u8],
) -> Result<GdbStubStateMachine<'a, Stub<I>, C>, u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let mut scratch: Scratch = [0; 64];
    let end = format(&mut scratch, format_args!("#{sum:02x}"));
    for byte in [b"$", body, end].into_iter().flatten() {
        let GdbStubStateMachine::Idle(idle) = session else {
            break;
        };
        session = idle
            .incoming_data(stub, *byte)
            .map_err(|error| error.into_target_error().map_or(EINVAL, errno))?;
    }
    Ok(session)
}
