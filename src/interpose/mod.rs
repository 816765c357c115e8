//! Unmodified crates of this process, on emulated maps: `cargo test` with aya or libbpf-rs, as an ordinary user.
//!
//! ```no_run
//! # #[cfg(feature = "interpose")] {
//! let _kernel = mapemu::interpose::install(mapemu::Kernel::new());
//! // From here on what this thread, and those that it starts, ask of bpf(2) is answered by that kernel.
//! # }
//! ```

mod bpffs;
mod caller;
mod files;
mod hooks;
mod hooks_fds;
mod hooks_files;
mod hooks_memory;
mod hooks_threads;
mod hooks_wait;
mod limit;
mod mapping;
mod memory;
mod numbers;
mod own;
mod perf;
mod placeholder;
mod play;
mod process;
mod raw;
mod sockets;
mod table;
mod threads;
mod wait;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::stat;

use crate::Kernel;
use crate::abi::Errno;
use crate::sys::OpenFile;
use crate::vm::Interpreter;
use bpffs::Bpffs;
use play::Plays;
pub use play::Run;
use threads::Thread;

/// A kernel that answers calls.
pub(crate) struct Installed {
    kernel: Kernel,
    bpffs: OnceLock<Bpffs>,
    plays: Plays,
    /// Inodes of the system that maps were asked about; the cgroups are among them.
    declared: Mutex<HashMap<(u64, u64), OpenFile>>,
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel.fmt(f)
    }
}

/// Answers calls until it is dropped. What was made before goes on to work: an fd belongs to its kernel as long as it is open.
#[must_use = "without it the running kernel is asked again"]
#[derive(Debug)]
pub struct Interposed {
    /// Where it is installed; nowhere with `MAPEMU=off`.
    at: Option<(Arc<Thread>, Arc<Installed>)>,
    /// Directories of the running kernel, to be removed.
    real: Mutex<Vec<PathBuf>>,
}

/// From here on that kernel answers the calls of bpf(2) of this thread, and of all threads that it starts and has started,
/// unless they have one of their own.
///
/// With `MAPEMU=off` in the environment nothing happens: the same tests run on the running kernel.
pub fn install(kernel: Kernel) -> Interposed {
    let Some(installed) = begin(kernel) else {
        return Interposed::new(None);
    };
    let thread = Thread::this();
    thread.install(Arc::clone(&installed));
    Interposed::new(Some((thread, installed)))
}

/// From here on calls are looked at.
fn begin(kernel: Kernel) -> Option<Arc<Installed>> {
    if is_off() {
        return None;
    }
    hooks::keep();
    process::begin();
    kernel.env().refuse_with(refuse);
    kernel.run_programs_with(Arc::new(Interpreter));
    Some(Arc::new(Installed {
        kernel,
        bpffs: OnceLock::new(),
        plays: Plays::default(),
        declared: Mutex::default(),
    }))
}

impl Drop for Interposed {
    fn drop(&mut self) {
        if let Some((thread, installed)) = &self.at {
            thread.uninstall(installed);
        }
        for dir in self.real.get_mut().iter().rev() {
            remove(dir);
        }
    }
}

/// Removes a directory of the running kernel's, with the directories and pins that are in it. Nobody is there to be told of a
/// failure.
fn remove(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&path);
        } else {
            // The files of a cgroup stay until it goes.
            let _ = std::fs::remove_file(path);
        }
    }
    let _ = std::fs::remove_dir(dir);
}

impl Interposed {
    fn new(at: Option<(Arc<Thread>, Arc<Installed>)>) -> Self {
        Self {
            at,
            real: Mutex::default(),
        }
    }

    fn installed(&self) -> Option<&Arc<Installed>> {
        self.at.as_ref().map(|(_, installed)| installed)
    }

    /// The kernel that answers; none with `MAPEMU=off`.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.installed().map(|installed| &installed.kernel)
    }

    /// A directory in which objects can be pinned, for this test alone; it goes with the kernel. With `MAPEMU=off` it is a new
    /// one in `/sys/fs/bpf`.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn pin_dir(&self) -> io::Result<PathBuf> {
        let Some(installed) = self.installed() else {
            return self.real_dir(Path::new("/sys/fs/bpf"));
        };
        if installed.bpffs.get().is_none() {
            // Of two threads that do so, one makes a directory that is removed at once.
            let _ = installed.bpffs.set(Bpffs::new()?);
        }
        let bpffs = installed.bpffs.get().expect("set above");
        Ok(bpffs.dir().to_owned())
    }

    /// A directory that is a cgroup of the emulated kernel, without processes, for this test alone; it goes with the kernel.
    /// With `MAPEMU=off` it is a new cgroup in the directory that `MAPEMU_CGROUP` names, or `/sys/fs/cgroup`.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn cgroup_dir(&self) -> io::Result<PathBuf> {
        let Some(installed) = self.installed() else {
            let parent = std::env::var_os("MAPEMU_CGROUP");
            let parent = parent.unwrap_or_else(|| "/sys/fs/cgroup".into());
            return self.real_dir(Path::new(&parent));
        };
        let dir = bpffs::new_dir(&std::env::temp_dir())?;
        self.real.lock().push(dir.clone());
        let inode = stat(&dir)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let fd = installed.kernel.cgroup_create(&name, None);
        let file = fd.and_then(|fd| installed.kernel.open_file(fd));
        let file = file.map_err(|errno| io::Error::from_raw_os_error(errno.number().into()))?;
        let mut declared = installed.declared.lock();
        declared.insert((inode.st_dev, inode.st_ino), file);
        Ok(dir)
    }

    fn real_dir(&self, parent: &Path) -> io::Result<PathBuf> {
        let dir = bpffs::new_dir(parent)?;
        self.real.lock().push(dir.clone());
        Ok(dir)
    }

    /// What the program of that name does, in Rust, in place of its instructions: called for each `BPF_PROG_TEST_RUN` of it, and
    /// by [`Interposed::fire`]; it gives what the program returns. Nothing with `MAPEMU=off`: the program itself runs.
    pub fn play(&self, name: &str, play: impl Fn(&mut Run<'_>) -> u32 + Send + Sync + 'static) {
        if let Some(installed) = self.installed() {
            installed.plays.add(name, Arc::new(play));
        }
    }

    /// An event that runs the program of that name on that CPU, as [`Interposed::play`] says; what it returns.
    ///
    /// # Panics
    ///
    /// If no program of that name is loaded, or nothing is played for it; with `MAPEMU=off`.
    #[track_caller]
    pub fn fire(&self, name: &str, cpu: u32, data: &mut [u8]) -> u32 {
        let installed = self.installed();
        installed
            .expect("events of the running kernel are its own")
            .fire(name, cpu, data)
    }
}

/// The hooks are in this program, and take the calls of its crates.
///
/// # Panics
///
/// If they do not, with advice.
#[track_caller]
pub fn assert_active() {
    hooks::assert_active();
}

/// That kernel answers all threads that have none by [`install`], as those of a pool that others started.
///
/// With `MAPEMU=off` in the environment nothing happens.
pub fn install_for_process(kernel: Kernel) {
    if let Some(installed) = begin(kernel) {
        threads::install_for_process(Some(installed));
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
