//! Whether a file is of the build that runs: names and places of another's are wrong everywhere.

use super::VARIABLE;
use super::variable::read;
use crate::image::{BuildId, Images, build_id, id_text};
use crate::target::{ReadError, Target, TargetError};

/// Has `images` use hyp's file only if the machine has its build id where this build is loaded. hyp's image begins with
/// it, so that any build's is found there.
pub(in crate::hypervisor) fn keep_running(
    target: &mut dyn Target,
    images: &mut Images,
    problems: &mut Vec<String>,
) -> Result<(), TargetError> {
    let mut others = Vec::new();
    images.keep_running(VARIABLE, |file, wanted| {
        let there = read(target, wanted.notes)?;
        let other = other_build(file, wanted, &there);
        if let Err(error) = there {
            problems.push(format!(
                "whether {file} is of the build that runs is not known: {error}"
            ));
        }
        let runs = other.is_none();
        others.extend(other);
        Ok::<_, TargetError>(runs)
    })?;
    if others.is_empty() {
        return Ok(());
    }
    let instead = match images.file_of(VARIABLE) {
        Some(file) => format!("{file} is used instead"),
        None if target.description()?.is_some() => {
            "what hyp says of itself is used instead".to_owned()
        }
        None => "give the file of that build".to_owned(),
    };
    problems.extend(others.iter().map(|other| format!("{other}; {instead}")));
    Ok(())
}

/// What tells that another build runs, for people. What was not read tells nothing, nor does memory that nothing was
/// loaded to yet.
fn other_build(file: &str, wanted: &BuildId, there: &Result<Vec<u8>, ReadError>) -> Option<String> {
    let there = there.as_ref().ok()?;
    let running = match build_id(there) {
        Some(id) if id == wanted.id => return None,
        Some(id) => format!("the running hyp's is {}", id_text(id)),
        None if there.iter().all(|byte| *byte == 0) => return None,
        None => format!("there is none at {:#x}", wanted.notes.start),
    };
    Some(format!(
        "{file} is not the hyp that runs: its build id is {}, {running}",
        id_text(&wanted.id)
    ))
}
