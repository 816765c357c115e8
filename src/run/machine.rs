//! What emulated maps and programs find of the machine that the program runs on, as it is: the time, network interfaces.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since it was started.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let [seconds, ns] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + ns
}

/// The indexes of its network interfaces.
pub(super) fn interfaces() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/sys/class/net").into_iter().flatten();
    all.filter_map(|interface| {
        let ifindex = fs::read_to_string(interface.ok()?.path().join("ifindex"));
        ifindex.ok()?.trim().parse().ok()
    })
}
