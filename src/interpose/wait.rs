//! Waiting for ring buffers and perf events: their placeholders are ready as they are.
//!
//! A wakeup makes a placeholder ready, and whoever waits for it wakes. User space consumes without a call, so what is empty
//! again is seen when somebody is about to wait.

use std::os::fd::{BorrowedFd, RawFd};

use super::table::{self, Entry};
use crate::abi::PollEvents;
use crate::map::object::Object;

/// Before somebody waits for an epoll instance, which may have any of them.
#[inline]
pub(super) fn before_epoll() {
    if table::waited_for() {
        table::for_each(refresh);
    }
}

/// Before somebody waits for that fd.
#[inline]
pub(super) fn before_poll(fd: RawFd) {
    if table::has(fd) {
        table::with(fd, refresh);
    }
}

/// Makes the placeholder ready or not, as the file is.
fn refresh(fd: BorrowedFd<'_>, entry: &Entry) {
    if entry.wakes.lock().is_none() {
        return;
    }
    match ready(entry) {
        Ready::Yes => entry.placeholder.wake_if_calm(),
        Ready::AsItIs => {}
        Ready::No => {
            entry.placeholder.calm(fd);
            if !matches!(ready(entry), Ready::No) {
                // Something came meanwhile, and its wakeup may be what was taken away.
                entry.placeholder.wake();
            }
        }
    }
}

enum Ready {
    Yes,
    AsItIs,
    No,
}

fn ready(entry: &Entry) -> Ready {
    if let Object::Other(object) = entry.file.object() {
        // The kernel forgets a wakeup when it has told of it. What is not read yet is told again here.
        let buffer = object.perf_event().and_then(|event| event.buffer());
        return match buffer {
            Some(buffer) if buffer.has_unread() => Ready::AsItIs,
            _ => Ready::No,
        };
    }
    let bits = PollEvents::IN | PollEvents::OUT;
    match entry.file.poll() {
        Ok(events) if events & bits.bits() != 0 => Ready::Yes,
        _ => Ready::No,
    }
}
