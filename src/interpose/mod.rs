//! Unmodified crates of this process, on emulated maps: `cargo test` with aya or libbpf-rs, as an ordinary user.
//!
//! ```no_run
//! # #[cfg(feature = "interpose")] {
//! let _kernel = mapemu::interpose::install(mapemu::Kernel::new());
//! // From here on what this thread, and those that it starts, ask of bpf(2) is answered by that kernel.
//! # }
//! ```

mod caller;
mod hooks;
mod memory;
mod placeholder;
mod process;
mod raw;
mod table;
mod threads;

use std::fmt;
use std::sync::Arc;

use crate::Kernel;
use crate::abi::Errno;
use threads::Thread;

/// A kernel that answers calls.
pub(crate) struct Installed {
    kernel: Kernel,
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel.fmt(f)
    }
}

/// Answers calls until it is dropped. What was made before goes on to work: an fd belongs to its kernel as long as it is open.
#[must_use = "without it the running kernel is asked again"]
#[derive(Debug)]
pub struct Interposed(Option<(Arc<Thread>, Arc<Installed>)>);

/// From here on that kernel answers the calls of bpf(2) of this thread, and of all threads that it starts and has started,
/// unless they have one of their own.
///
/// With `MAPEMU=off` in the environment nothing happens: the same tests run on the running kernel.
pub fn install(kernel: Kernel) -> Interposed {
    if is_off() {
        return Interposed(None);
    }
    hooks::keep();
    process::begin();
    kernel.env().refuse_with(refuse);
    let installed = Arc::new(Installed { kernel });
    let thread = Thread::this();
    thread.install(Arc::clone(&installed));
    Interposed(Some((thread, installed)))
}

impl Drop for Interposed {
    fn drop(&mut self) {
        if let Some((thread, installed)) = &self.0 {
            thread.uninstall(installed);
        }
    }
}

impl Interposed {
    /// The kernel that answers; none with `MAPEMU=off`.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.0.as_ref().map(|(_, installed)| &installed.kernel)
    }
}

/// The environment says that the running kernel is to be asked.
pub fn is_off() -> bool {
    std::env::var_os("MAPEMU").is_some_and(|value| value == "off")
}

/// What cannot be emulated is named and refused.
fn refuse(what: fmt::Arguments<'_>) -> Errno {
    notice(format_args!(
        "{what} is not emulated: refused with EOPNOTSUPP"
    ));
    Errno::EOPNOTSUPP
}

/// A line for people.
#[cold]
#[expect(
    clippy::print_stderr,
    reason = "the caller sees an errno, and no words"
)]
fn notice(what: fmt::Arguments<'_>) {
    eprintln!("mapemu: {what}");
}
