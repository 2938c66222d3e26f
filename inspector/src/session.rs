//! Opening what the user named, again and again.

use crate::abort::{FollowError, Follower, Gates, Story, Wanted};
use crate::demo::{self, Demo};
use crate::hypervisor;
use crate::image::{ImageError, Images};
use crate::model::System;
use crate::target::{self, Recorder, Target, TargetError, gdb, snapshot};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the embedded machine.
const DEMO: &str = "demo";

/// What to open; opening it a second time reconnects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opener {
    /// `demo`, `HOST:PORT`, `:PORT`, `unix:PATH`, or the file of a snapshot or memory dump.
    pub target: String,
    /// ELF files of the programs that run there.
    pub images: Vec<PathBuf>,
    /// How long a silent server is waited for.
    pub timeout: Duration,
}

/// Why a session could not be opened, or broke.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A file of `--image`.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// An open target. Dropping it leaves the machine as it was found.
pub struct Session {
    target: Box<dyn Target>,
    images: Images,
    /// Ends after the target let go of it.
    _demo: Option<Demo>,
}

impl Opener {
    /// Opens the target and the images.
    ///
    /// # Errors
    /// One sentence about what is wrong with the target or with an image.
    pub fn open(&self) -> Result<Session, SessionError> {
        // The images first: a typing error there should not stop a machine.
        let images = Images::open(&self.images)?;
        if self.target != DEMO {
            return Ok(Session {
                target: target::open(&self.target, self.timeout)?,
                images,
                _demo: None,
            });
        }
        let failed = |reason: String| TargetError::Open {
            target: DEMO.to_owned(),
            reason,
        };
        let demo = demo::start().map_err(|error| failed(error.to_string()))?;
        let address = demo.address().to_string();
        let address = gdb::Address::parse(&address)?
            .ok_or_else(|| failed(format!("`{address}` is no address")))?;
        Ok(Session {
            target: Box::new(gdb::Gdb::attach(DEMO, &address, self.timeout)?),
            images,
            _demo: Some(demo),
        })
    }
}

impl Session {
    /// Reads everything that the views show. The machine must be stopped.
    ///
    /// # Errors
    /// The target as a whole failed.
    pub fn capture(&mut self) -> Result<System, TargetError> {
        hypervisor::capture(self.target.as_mut(), &mut self.images)
    }

    /// Adds source lines and inlined functions to where a capture's CPUs are, as far as the images have them.
    pub fn add_lines(&mut self, system: &mut System) {
        hypervisor::add_lines(system, &mut self.images);
    }

    /// Captures, and writes a snapshot that shows the same and allows to ask for more: all that the
    /// capture read, and the hypervisor's own memory.
    ///
    /// # Errors
    /// The target as a whole failed, or the file cannot be written; it is then as it was.
    pub fn save(&mut self, path: &Path) -> Result<System, TargetError> {
        let mut recorder = Recorder::new(self.target.as_mut());
        let mut system = hypervisor::capture(&mut recorder, &mut self.images)?;
        hypervisor::add_lines(&mut system, &mut self.images);
        recorder.read_phys(&hypervisor::own_memory(&system))?;
        let mut contents = recorder.finish()?;
        if let Some(notes) = self.images.notes() {
            contents.symbols = Some(notes);
        }
        contents.physvirt_offset = system.physvirt_offset;
        snapshot::write(path, &contents)?;
        Ok(system)
    }

    /// Sets breakpoints at the entries of EL2, to follow host traps. The machine must be stopped.
    ///
    /// # Errors
    /// There is nothing to follow, or no way to.
    pub fn follow(&mut self, wanted: Wanted) -> Result<Follower, FollowError> {
        Follower::arm(self.target.as_mut(), &mut self.images, wanted)
    }

    /// Whether there is something to follow yet. The machine must be stopped.
    ///
    /// # Errors
    /// The link failed, the target cannot run, or there never will be: the machine has panicked.
    pub fn is_ready(&mut self) -> Result<bool, FollowError> {
        let is_ready = Follower::is_ready(self.target.as_mut())?;
        if !is_ready && hypervisor::panicked(&self.capture()?.cpus).is_some() {
            return Err(FollowError::panicked(self.target.as_ref()));
        }
        Ok(is_ready)
    }

    /// Lets the machine run until a host comes under stage 2: it stops there, if the images say where that is, or is found
    /// out by a look after each `moment`. The machine must be stopped, and stands afterwards.
    ///
    /// # Errors
    /// The link failed, or the machine has ended.
    pub fn wait_for_el2(&mut self, moment: Duration) -> Result<(), FollowError> {
        let gates = Gates::of(&mut self.images);
        while !gates.wait(self.target.as_mut(), moment)? {}
        Ok(())
    }

    /// Lets the machine run until traps have been followed to their end, or for `limit`.
    ///
    /// # Errors
    /// The link failed, or the machine is not what it was.
    pub fn stories(
        &mut self,
        follower: &mut Follower,
        limit: Duration,
    ) -> Result<Vec<Story>, FollowError> {
        follower.next(self.target.as_mut(), &mut self.images, limit)
    }

    /// Stops the machine, and looks whether it still is the one that is followed.
    ///
    /// # Errors
    /// The link failed, or the machine has restarted.
    pub fn check(&mut self, follower: &Follower) -> Result<(), FollowError> {
        if let Some(control) = self.target.run_control() {
            control.interrupt()?;
        }
        follower.check(self.target.as_mut())
    }

    /// What the user asked for.
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// The target, and the files of what runs there.
    pub fn parts(&mut self) -> (&mut dyn Target, &mut Images) {
        (self.target.as_mut(), &mut self.images)
    }

    /// What the user should know of how the target was found, in sentences.
    pub fn notes(&self) -> Vec<String> {
        self.target.notes()
    }
}

#[cfg(test)]
mod tests;
