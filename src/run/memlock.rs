//! `RLIMIT_MEMLOCK`: no memory is taken for maps, so any limit can be set, of which the running kernel would refuse some.
//!
//! The running kernel keeps it, too: each limit that was set has a number, and a process that has it is given a soft limit
//! that is so much below its hard one. So it is inherited and ends as all limits do.

use libc::pid_t;
use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::memory::TaskMem;
use super::port::{Answer, Port};
use super::task;
use crate::abi::{Attr, Errno, Result, UserMem};

/// The limits that were set, soft and hard.
#[derive(Debug, Default)]
pub(super) struct Memlock(Mutex<Vec<[u64; 2]>>);

impl Memlock {
    /// prlimit(2); an address may be 0.
    pub(super) fn limit(&self, port: &dyn Port, process: u64, new: u64, old: u64) -> Answer {
        let task = port.task();
        let of = task::process_of(task).unwrap_or(task);
        let other = pid_t::try_from(process.cast_signed())
            .is_ok_and(|asked| asked != 0 && asked != of && asked != task);
        let real = real_limit(of);
        let now = self.emulated(real);
        if other || new == 0 && now == real {
            return Answer::Continue;
        }
        let mut mem = TaskMem::new(port);
        let mut answer = || -> Result<u64> {
            if new != 0 {
                let mut bytes = [0; 16];
                mem.read(new, &mut bytes)?;
                let limit = [Attr(&bytes).u64(0), Attr(&bytes).u64(8)];
                if limit[0] > limit[1] {
                    return Err(Errno::EINVAL);
                }
                self.set(of, real[1], limit)?;
            }
            if old != 0 {
                let bytes: Vec<u8> = now.iter().flat_map(|limit| limit.to_ne_bytes()).collect();
                mem.write(old, &bytes)?;
            }
            Ok(0)
        };
        Answer::Returns(answer())
    }

    /// What a process was given that has those limits.
    fn emulated(&self, real: [u64; 2]) -> [u64; 2] {
        let number = real[1]
            .checked_sub(real[0])
            .and_then(|below| below.checked_sub(1));
        let number = number.and_then(|number| usize::try_from(number).ok());
        let limits = self.0.lock();
        number
            .and_then(|number| limits.get(number))
            .copied()
            .unwrap_or(real)
    }

    fn set(&self, process: pid_t, hard: u64, limit: [u64; 2]) -> Result<()> {
        let mut limits = self.0.lock();
        let number = limits
            .iter()
            .position(|known| *known == limit)
            .unwrap_or_else(|| {
                limits.push(limit);
                limits.len() - 1
            });
        let soft = hard.checked_sub(number as u64 + 1).ok_or(Errno::EPERM)?;
        let limit = Rlimit {
            current: Some(soft),
            maximum: (hard != u64::MAX).then_some(hard),
        };
        let set = prlimit(Pid::from_raw(process), Resource::Memlock, limit);
        set.map(drop).map_err(|_| Errno::EPERM)
    }
}

/// The limits that the running kernel has for a process.
fn real_limit(process: pid_t) -> [u64; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let mut numbers = line.unwrap_or_default().split_ascii_whitespace();
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    [next().unwrap_or(u64::MAX), next().unwrap_or(u64::MAX)]
}
