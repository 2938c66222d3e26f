//! A machine behind a gdb server: QEMU's, or hyp's own channel.
//!
//! Which server it is, is asked, not told. Physical memory is read and tables are walked by the inspector itself: a
//! server's virtual reads honour the host's stage 2, which is filled on demand, so most of RAM would be unreadable.

mod access;
mod address;
mod breakpoints;
mod channel;
mod exclusive;
mod link;
mod mark;
mod qemu;
mod registers;
mod run;
mod step;
mod target_xml;
mod wire;
mod writes;

pub use address::Address;
pub(crate) use writes::may_write;

use crate::addr::Span;
use crate::target::{ReadError, Registers, RunControl, Target, TargetError};
use channel::Channel;
use link::{Link, printable};
use mark::Traces;
use qemu::Qemu;
use registers::Layout;
use run::{Machine, Thread};
use std::time::Duration;

/// The first request. `multiprocess` is not offered: QEMU would keep to it for later clients too. Thread ids are taken
/// in either form.
const HELLO: &str = "qSupported:xmlRegisters=aarch64";
/// The most CPUs.
const CPU_LIMIT: usize = 4096;
/// The largest single range read, so that a machine that lies about its RAM does not exhaust ours.
const READ_LIMIT: u64 = 1 << 30;

/// A machine behind a gdb server. It stands still from attaching on; dropping this leaves it as it was found.
#[derive(Debug)]
pub struct Gdb {
    machine: Machine,
    server: Server,
    layout: Layout,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Server {
    Qemu(Qemu),
    Channel(Channel),
}

impl Gdb {
    /// Connects to a server, finds out what it is and stops its machine.
    ///
    /// `target` is the name for messages; `timeout` limits each wait.
    ///
    /// # Errors
    /// Nothing listens there, it is silent, it is no gdb server, or none of the two known ones.
    pub fn attach(target: &str, address: &Address, timeout: Duration) -> Result<Self, TargetError> {
        // From here on an error drops `machine`, which leaves it as found.
        let mut machine = Machine::new(Link::connect(target, address, timeout)?);
        let hello = machine.link.greet("greeting the gdb server", HELLO)?;
        machine.take_found();
        let found_running = machine.found_running();
        let packet_size = packet_size(&hello);
        let stale_mode = qemu::leave_physical_mode(&mut machine.link)?;
        let mut traces = match stale_mode {
            Some(_) => Some(Traces::find(&mut machine)?),
            None => None,
        };
        let server = match stale_mode {
            Some(_) => Server::Qemu(Qemu::new(&mut machine.link, packet_size)?),
            None => match Channel::detect(&mut machine.link, packet_size)? {
                Some(channel) => Server::Channel(channel),
                None => {
                    return Err(TargetError::Open {
                        target: target.to_owned(),
                        reason: "a gdb server, but neither QEMU's nor hyp's: physical memory cannot be read through it"
                            .to_owned(),
                    });
                }
            },
        };
        machine.threads = list_threads(&mut machine.link)?;
        let layout = Layout::read(&mut machine.link, packet_size)?;
        machine.breakpoints.pc_request = layout.pc_request();
        machine.breakpoints.qemu = matches!(server, Server::Qemu(_));
        let mut notes = Vec::new();
        if let Some(traces) = &mut traces {
            traces.clear(&mut machine, &layout)?;
            notes = traces.notes(stale_mode == Some(true), found_running);
        }
        Ok(Self {
            machine,
            server,
            layout,
            notes,
        })
    }
}

impl Gdb {
    /// The registers of these threads, all in one exchange.
    fn registers_of(
        &mut self,
        doing: &str,
        threads: &[Thread],
    ) -> Result<Vec<Registers>, TargetError> {
        self.machine.ensure_stopped(doing)?;
        let of_one = self.layout.requests();
        let requests: Vec<_> = threads
            .iter()
            .flat_map(|thread| std::iter::once(format!("Hg{}", thread.id)).chain(of_one.clone()))
            .collect();
        let link = &mut self.machine.link;
        let replies = link.exchange(doing, &requests)?;
        let each = replies.chunks(of_one.len() + 1);
        each.map(|replies| match replies.split_first() {
            Some((selected, values)) if selected == b"OK" => {
                self.layout.values(link, doing, values)
            }
            _ => Err(link.protocol(doing, "the server does not know that CPU any more")),
        })
        .collect()
    }
}

impl Target for Gdb {
    fn name(&self) -> &str {
        self.machine.link.target()
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.machine.threads.len())
    }

    fn registers(&mut self, cpu: usize) -> Result<Registers, TargetError> {
        let doing = format!("reading the registers of CPU {cpu}");
        let Some(thread) = self.machine.threads.get(cpu).cloned() else {
            let reason = format!("there are only {} CPUs", self.machine.threads.len());
            return Err(self.machine.link.protocol(&doing, reason));
        };
        let read = self.registers_of(&doing, &[thread])?.pop();
        read.ok_or_else(|| self.machine.link.protocol(&doing, "no reply"))
    }

    fn all_registers(&mut self) -> Result<Vec<Registers>, TargetError> {
        let threads = self.machine.threads.clone();
        self.registers_of("reading the registers of all CPUs", &threads)
    }

    fn some_registers(&mut self, names: &[&str]) -> Result<Vec<Registers>, TargetError> {
        let doing = "reading registers of all CPUs";
        self.machine.ensure_stopped(doing)?;
        let of_one = self.layout.requests_for(names);
        let threads = &self.machine.threads;
        let requests: Vec<_> = threads
            .iter()
            .flat_map(|thread| std::iter::once(format!("Hg{}", thread.id)).chain(of_one.clone()))
            .collect();
        let replies = self.machine.link.exchange(doing, &requests)?;
        let each = replies.chunks(of_one.len() + 1);
        let values = each.map(|replies| self.layout.values_of(names, &replies[1..]));
        Ok(values.collect())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(match &self.server {
            Server::Qemu(qemu) => qemu.ram.clone(),
            Server::Channel(channel) => channel.ram.clone(),
        }))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        self.machine.ensure_stopped("reading physical memory")?;
        let allowed: Vec<_> = requests
            .iter()
            .copied()
            .filter(|span| span.size <= READ_LIMIT)
            .collect();
        let answers = match &mut self.server {
            Server::Qemu(qemu) => qemu.read(&mut self.machine.link, &allowed)?,
            Server::Channel(channel) => channel.read(&mut self.machine.link, &allowed)?,
        };
        let mut answers = answers.into_iter();
        let too_large = |span: &Span| ReadError::Refused {
            span: *span,
            reason: "more than 1 GiB at once".to_owned(),
        };
        Ok(requests
            .iter()
            .map(|span| match span.size <= READ_LIMIT {
                true => answers.next().unwrap_or_else(|| Err(too_large(span))),
                false => Err(too_large(span)),
            })
            .collect())
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(match &self.server {
            Server::Qemu(_) => None,
            Server::Channel(channel) => Some(channel.description.clone()),
        })
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn run_control(&mut self) -> Option<&mut dyn RunControl> {
        Some(&mut self.machine)
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let link = &mut self.machine.link;
        if let Server::Qemu(qemu) = &mut self.server
            && qemu.is_physical()
            && !link.is_lost()
        {
            // There is nobody left to tell of an error; dropping `machine` does the rest.
            let _ = link
                .begin_leaving("switching QEMU's physical memory mode off")
                .and_then(|()| qemu.restore(link));
        }
    }
}

fn list_threads(link: &mut Link) -> Result<Vec<Thread>, TargetError> {
    let doing = "listing the CPUs";
    let mut threads = Vec::new();
    let mut request = "qfThreadInfo";
    loop {
        let reply = link.ask(doing, request)?;
        request = "qsThreadInfo";
        let list = match reply.as_slice() {
            b"l" => break,
            [b'm', list @ ..] => String::from_utf8_lossy(list).into_owned(),
            other => {
                let reason = format!("the server answered `{}`", printable(other));
                return Err(link.protocol(doing, reason));
            }
        };
        for id in list.split(',') {
            let thread = Thread::parse(id)
                .ok_or_else(|| link.protocol(doing, format!("`{id}` is no thread")))?;
            threads.push(thread);
        }
        if threads.len() > CPU_LIMIT {
            return Err(link.protocol(doing, "there are too many"));
        }
    }
    if threads.is_empty() {
        return Err(link.protocol(doing, "there are none"));
    }
    threads.sort();
    Ok(threads)
}

/// What the server says it takes in one packet, kept within reason; 400 bytes where it says nothing, as gdb does.
fn packet_size(hello: &[u8]) -> usize {
    String::from_utf8_lossy(hello)
        .split(';')
        .find_map(|feature| usize::from_str_radix(feature.strip_prefix("PacketSize=")?, 16).ok())
        .unwrap_or(400)
        .clamp(64, 1 << 17)
}

#[cfg(test)]
mod tests;
