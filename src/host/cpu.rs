//! CPUs of the running kernel: how many there can be, and which one a thread runs on.
#![expect(unsafe_code, reason = "sched_setaffinity(2)")]

use std::cell::Cell;
use std::fs;
use std::mem::size_of;

use super::os::checked;
use crate::abi::{Errno, Result};

thread_local! {
    /// The CPU that this thread was put on last.
    static RUNS_ON: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Number of possible CPUs; a value of a per-CPU map has a part for each.
///
/// # Errors
///
/// `ENOENT` without `/sys`, `EINVAL` if it cannot be read.
pub fn possible_cpus() -> Result<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible").map_err(|_| Errno::ENOENT)?;
    count(list.trim()).ok_or(Errno::EINVAL)
}

/// Counts a list such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    let parts = list.split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    parts.sum()
}

/// From here on the calling thread runs on that CPU only.
///
/// # Errors
///
/// `EINVAL` if there is no such CPU, or this process may not use it.
pub fn run_on(cpu: u32) -> Result<()> {
    if RUNS_ON.get() == Some(cpu) {
        return Ok(());
    }
    let mut set = [0_u64; 128];
    let word = set.get_mut(cpu as usize / 64).ok_or(Errno::EINVAL)?;
    *word |= 1 << (cpu % 64);
    // SAFETY: `set` is as long as the length says, and is only read; 0 is the calling thread.
    let ret = unsafe { libc::sched_setaffinity(0, size_of::<[u64; 128]>(), set.as_ptr().cast()) };
    checked(i64::from(ret))?;
    RUNS_ON.set(Some(cpu));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(count("0-1"), Some(2));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-3,8,10-11"), Some(7));
        assert_eq!(count("x"), None);
    }
}
