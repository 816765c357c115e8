//! The running kernel, for the commands that ask it.

use crate::trace::World;

/// The running kernel with what is around its maps, or why it cannot be asked.
#[cfg(target_os = "linux")]
pub(super) fn running_world() -> Result<Box<dyn World>, String> {
    match crate::trace::Running::new() {
        Ok(world) => Ok(Box::new(world)),
        Err(unavailable) => Err(unavailable.to_string()),
    }
}

/// The running kernel is none that has bpf(2).
#[cfg(not(target_os = "linux"))]
pub(super) fn running_world() -> Result<Box<dyn World>, String> {
    Err("the running kernel cannot be used: it is not Linux".to_owned())
}
