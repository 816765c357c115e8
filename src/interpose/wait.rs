//! Waiting for ring buffers and perf events: their placeholders are ready as they are.
//!
//! A wakeup makes a placeholder ready, and whoever waits for it wakes. User space consumes without a call, so what is empty
//! again is seen when somebody is about to wait.

use std::os::fd::{BorrowedFd, RawFd};

use super::placeholder::State;
use super::table::{self, Entry, OURS};
use crate::abi::PollEvents;
use crate::map::object::Object;
use crate::map::perf_event::Event;
use crate::sys::OpenFile;

/// Before somebody waits for an epoll instance, which may have any of them.
#[inline]
pub(super) fn before_epoll() {
    if table::waited_for() {
        OURS.all().for_each(before_poll);
    }
}

/// Before somebody waits for that fd.
#[inline]
pub(super) fn before_poll(fd: RawFd) {
    table::with(fd, refresh);
}

fn refresh(fd: BorrowedFd<'_>, entry: &Entry) {
    if entry.wakes.lock().is_some() {
        entry.placeholder.refresh(fd, || state(&entry.file));
    }
}

/// Whether a file is ready.
pub(super) fn state(file: &OpenFile) -> State {
    if let Object::Other(object) = file.object() {
        // The kernel forgets a wakeup when it has told of it. What is not read yet is told again here.
        let buffer = object.perf_event().and_then(Event::buffer);
        return match buffer {
            Some(buffer) if buffer.has_unread() => State::AsItIs,
            _ => State::NotReady,
        };
    }
    let bits = PollEvents::IN | PollEvents::OUT;
    match file.poll() {
        Ok(events) if events & bits.bits() != 0 => State::Ready,
        _ => State::NotReady,
    }
}
