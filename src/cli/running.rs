//! The running kernel, for the commands that ask it.

#[cfg(target_os = "linux")]
use crate::host::Host;
#[cfg(target_os = "linux")]
use crate::trace::Running;
use crate::trace::World;

/// The running kernel with what is around its maps, or why it cannot be asked.
#[cfg(target_os = "linux")]
///
/// `any_size`: it may be asked for maps that the machine does not outlive.
pub(super) fn running_world(any_size: bool) -> Result<Box<dyn World>, String> {
    let host = Host::new().and_then(|host| {
        if any_size {
            host.of_any_size()
        } else {
            Ok(host)
        }
    });
    match host {
        Ok(host) => Ok(Box::new(Running::with(host))),
        Err(unavailable) => Err(unavailable.to_string()),
    }
}

/// The running kernel is none that has bpf(2).
#[cfg(not(target_os = "linux"))]
pub(super) fn running_world(_any_size: bool) -> Result<Box<dyn World>, String> {
    Err("the running kernel cannot be used: it is not Linux".to_owned())
}
