//! A perf event that programs write to, and its buffer, which user space maps.
//!
//! The buffer is a page of positions (`struct perf_event_mmap_page`), then the data, a power of two of pages. It is there as
//! long as it is mapped. Positions only grow; the place in the data is the position modulo the size. What finds no room is
//! counted, and told by a record before the next one that finds some. In a buffer that user space made without writing, which
//! has no reader's position then, records are written over old ones. Where records are written backward, positions only shrink.
//!
//! Kernel: `kernel/events/ring_buffer.c`, `kernel/events/core.c:perf_mmap` (v6.18).

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::signal::Signal;
use crate::abi::{
    Errno, PAGE_SIZE, PERF_HEADER_SIZE, PERF_RECORD_LOST, PERF_RECORD_MISC_KERNEL,
    PERF_RECORD_SAMPLE, PerfEvent, PollEvents, Result, Wakeup, perf_page,
};
use crate::env::Env;
use crate::store::{WORD, Words};

/// Bytes of a record of type [`PERF_RECORD_LOST`].
const LOST_SIZE: u64 = 24;
/// Pages of data are fewer than this: the kernel allocates 8 bytes for each at once, and 4 MiB is the most that it does.
const MAX_DATA_PAGES: usize = 1 << 19;

/// A perf event.
#[derive(Debug)]
pub struct Event {
    /// What it was opened with.
    pub opened: PerfEvent,
    /// The number that `PERF_EVENT_IOC_ID` and records of lost samples tell.
    pub id: u64,
    enabled: AtomicBool,
    buffer: Mutex<Weak<Buffer>>,
    /// Wakes those who wait for it, whatever its buffer is by then.
    signal: Arc<Signal>,
    /// Where the buffer is to lie: see [`Event::lay_in`].
    #[cfg(all(target_os = "linux", not(shuttle)))]
    file: std::sync::OnceLock<std::os::fd::OwnedFd>,
}

impl Event {
    pub(super) fn new(id: u64, opened: PerfEvent) -> Self {
        Self {
            opened,
            id,
            enabled: AtomicBool::new(!opened.disabled),
            buffer: Mutex::new(Weak::new()),
            signal: Arc::default(),
            #[cfg(all(target_os = "linux", not(shuttle)))]
            file: std::sync::OnceLock::new(),
        }
    }

    /// The buffer will lie in that file without a name, which is empty: for a front end whose callers map the file
    /// themselves.
    #[cfg(all(target_os = "linux", not(shuttle)))]
    pub fn lay_in(&self, file: std::os::fd::OwnedFd) {
        // It stays where it was laid first.
        let _ = self.file.set(file);
    }

    /// Memory for a buffer: zeros.
    fn memory(&self, len: usize) -> std::io::Result<Words> {
        #[cfg(all(target_os = "linux", not(shuttle)))]
        if let Some(file) = self.file.get() {
            let words = Words::in_this(file.try_clone()?, len)?;
            for at in 0..len {
                words.word(at).store(0, Ordering::Relaxed);
            }
            return Ok(words);
        }
        Words::in_file(len)
    }

    /// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_DISABLE`: it takes samples, or not.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
    }

    /// The buffer, if it is mapped.
    pub fn buffer(&self) -> Option<Arc<Buffer>> {
        self.buffer.lock().upgrade()
    }

    /// `PERF_EVENT_IOC_PAUSE_OUTPUT`: while it is paused, samples find no room.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a buffer that has data.
    ///
    /// Kernel: `kernel/events/core.c:_perf_ioctl`.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let buffer = self.buffer().filter(|buffer| buffer.size > 0);
        let buffer = buffer.ok_or(Errno::EINVAL)?;
        buffer.paused.store(paused, Ordering::Release);
        Ok(())
    }

    /// Maps the buffer, which is made if nobody has it mapped: its positions' page and so many pages of data. Made without
    /// `write`, it is for ever one whose records are written over.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is there with another size, or the pages of data are neither none nor a power of two; `ENOMEM`.
    ///
    /// Kernel: `perf_mmap`.
    pub fn map(&self, data_pages: usize, write: bool) -> Result<Arc<Buffer>> {
        let mut buffer = self.buffer.lock();
        if let Some(mapped) = buffer.upgrade() {
            let same = mapped.size == (data_pages * PAGE_SIZE) as u64;
            return if same { Ok(mapped) } else { Err(Errno::EINVAL) };
        }
        if data_pages != 0 && !data_pages.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        if data_pages >= MAX_DATA_PAGES {
            return Err(Errno::ENOMEM);
        }
        let words = self.memory((data_pages + 1) * PAGE_SIZE / WORD);
        let words = words.map_err(|_| Errno::ENOMEM)?;
        let signal = Arc::clone(&self.signal);
        let new = Arc::new(Buffer::new(words, !write, self.opened, signal));
        *buffer = Arc::downgrade(&new);
        Ok(new)
    }

    /// A sample of the bytes of `parts`, one after the other, made on that CPU at the time of `env`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if programs cannot write to events of this kind; `EOPNOTSUPP` if it is off or that of another CPU; `ENOSPC` if
    /// it has no buffer, or there is no room.
    ///
    /// Kernel: `kernel/trace/bpf_trace.c:__bpf_perf_event_output`.
    pub(super) fn output(&self, env: &Env, cpu: u32, parts: [&[u8]; 2]) -> Result<()> {
        if self.opened.config != PerfEvent::BPF_OUTPUT {
            return Err(Errno::EINVAL);
        }
        if self.opened.cpu != cpu || !self.enabled.load(Ordering::Acquire) {
            return Err(Errno::EOPNOTSUPP);
        }
        let buffer = self.buffer().ok_or(Errno::ENOSPC)?;
        let time = self.opened.timed.then(|| env.now_ns());
        buffer.output(self.id, time, parts)
    }

    /// poll(2) of its file: [`Event::poll`], as soon as that is anything, or the time is over (never, without one).
    pub fn wait(&self, timeout: Option<Duration>) -> PollEvents {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let seen = self.signal.count();
            let events = PollEvents::from_bits_retain(self.poll());
            if !events.is_empty() || left == Some(Duration::ZERO) {
                return events;
            }
            // Nothing keeps the buffer meanwhile: it goes with its last mapping, and that wakes too.
            self.signal.wait(seen, left);
        }
    }

    /// Has `hook` called, as long as it is kept, whenever those who wait are woken; on the thread that wakes.
    pub fn on_wake(&self, hook: &Arc<dyn Fn() + Send + Sync>) {
        self.signal.on_wake(hook);
    }

    /// The state of its file, as poll(2) shows it: whether it woke somebody since the last time.
    ///
    /// Kernel: `perf_poll`.
    pub fn poll(&self) -> u32 {
        match self.buffer() {
            Some(buffer) => buffer.poll.swap(0, Ordering::AcqRel),
            None => PollEvents::HUP.bits(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Buffer {
    words: Arc<Words>,
    /// Bytes of data: a power of two, or 0.
    size: u64,
    /// Records are written over old ones.
    overwrite: bool,
    /// Each record lies before the last one.
    backward: bool,
    /// Nothing is written.
    paused: AtomicBool,
    /// Wakes after so many bytes.
    watermark: u64,
    /// Wakes after so many samples; 0 is never.
    wakeup_events: u32,
    writer: Mutex<Writer>,
    /// What poll(2) gives next.
    poll: AtomicU32,
    /// The event's.
    signal: Arc<Signal>,
}

/// The last mapping is gone.
impl Drop for Buffer {
    fn drop(&mut self) {
        self.signal.wake();
    }
}

/// What the kernel knows of a buffer besides what is in its memory.
#[derive(Debug, Default)]
struct Writer {
    head: u64,
    lost: u64,
    /// Samples since the last wakeup for samples.
    events: u32,
    /// How many bytes woke somebody; one more for each wakeup for samples.
    wakeup: u64,
    /// The records that are written next; kept for its room.
    records: Vec<u8>,
}

impl Buffer {
    /// In memory of zeros.
    fn new(words: Words, overwrite: bool, opened: PerfEvent, signal: Arc<Signal>) -> Self {
        let size = (words.len() * WORD - PAGE_SIZE) as u64;
        for (at, number) in [
            (perf_page::LOCK, 2),
            // `cap_bit0_is_deprecated`: no counter can be read in user space.
            (perf_page::CAPABILITIES, 2),
            (perf_page::SIZE, 96),
            (perf_page::DATA_OFFSET, PAGE_SIZE as u64),
            (perf_page::DATA_SIZE, size),
        ] {
            words.word(at / WORD).store(number, Ordering::Relaxed);
        }
        let (wakeup_events, watermark) = match opened.wakeup {
            Wakeup::Events(events) => (events, 0),
            Wakeup::Watermark(bytes) => (0, u64::from(bytes).min(size)),
        };
        Self {
            words: Arc::new(words),
            size,
            overwrite,
            backward: opened.backward,
            paused: AtomicBool::new(false),
            watermark: if watermark == 0 { size / 2 } else { watermark },
            wakeup_events,
            writer: Mutex::default(),
            poll: AtomicU32::new(0),
            signal,
        }
    }

    /// Its memory.
    pub fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// Bytes of memory, with the first page.
    pub fn len(&self) -> usize {
        self.words.len() * WORD
    }

    /// Never: there is the first page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Number of wakeups so far.
    pub fn signals(&self) -> u64 {
        self.signal.count()
    }

    /// Sleeps until there was a wakeup after the first `seen` ones, or the time is over (never, without one).
    pub fn wait_signal(&self, seen: u64, timeout: Option<Duration>) {
        self.signal.wait(seen, timeout);
    }

    /// Has `hook` called at each wakeup, as long as it is kept, on the thread that wakes.
    pub fn on_wake(&self, hook: &Arc<dyn Fn() + Send + Sync>) {
        self.signal.on_wake(hook);
    }

    /// There are records that user space has not read.
    pub fn has_unread(&self) -> bool {
        let at = |place: usize| self.words.word(place / WORD).load(Ordering::Acquire);
        at(perf_page::DATA_HEAD) != at(perf_page::DATA_TAIL)
    }

    /// Kernel: `perf_output_begin`, `perf_output_sample`, `perf_output_end`.
    fn output(&self, event_id: u64, time: Option<u64>, parts: [&[u8]; 2]) -> Result<()> {
        let bytes = parts[0].len() + parts[1].len();
        // The number before the bytes, the bytes, and what fills them up are a multiple of 8.
        let raw_size = (4 + bytes).next_multiple_of(8) - 4;
        // The header has 16 bits for it. Of a longer record only so much is reserved; what lies behind is written all the same.
        let time_size = if time.is_some() { WORD } else { 0 };
        let sample_size = (PERF_HEADER_SIZE + time_size + 4 + raw_size) & usize::from(u16::MAX);
        let mut writer = self.writer.lock();
        let lost_size = if writer.lost > 0 { LOST_SIZE } else { 0 };
        let total = lost_size + sample_size as u64;
        let tail = self.words.word(perf_page::DATA_TAIL / WORD);
        let tail = tail.load(Ordering::Acquire);
        let (from, to) = if self.backward {
            (tail, writer.head)
        } else {
            (writer.head, tail)
        };
        // One byte is never used: a full buffer would look empty.
        let free = to.wrapping_sub(from.wrapping_add(1)) & self.size.wrapping_sub(1);
        let has_room = free >= total || self.overwrite;
        if self.size == 0 || self.paused.load(Ordering::Acquire) || !has_room {
            writer.lost += 1;
            return Err(Errno::ENOSPC);
        }
        let mut records = mem::take(&mut writer.records);
        records.clear();
        if writer.lost > 0 {
            let record = [header(PERF_RECORD_LOST, 0, 24), event_id, writer.lost];
            records.extend(record.iter().flat_map(|word| word.to_ne_bytes()));
            writer.lost = 0;
        }
        let sample_size = u16::try_from(sample_size).expect("cut above");
        let raw_size = u32::try_from(raw_size).expect("programs have no such memory");
        let sample = header(PERF_RECORD_SAMPLE, PERF_RECORD_MISC_KERNEL, sample_size);
        records.extend(sample.to_ne_bytes());
        records.extend(time.iter().flat_map(|time| time.to_ne_bytes()));
        records.extend(raw_size.to_ne_bytes());
        for part in parts {
            records.extend(part);
        }
        // What fills the sample up stays as it is.
        let next = if self.backward {
            writer.head.wrapping_sub(total)
        } else {
            writer.head.wrapping_add(total)
        };
        let first = if self.backward { next } else { writer.head };
        self.put(first, &records);
        writer.records = records;
        self.advance(&mut writer, next);
        Ok(())
    }

    /// Shows what was written, and wakes who waits.
    fn advance(&self, writer: &mut Writer, next: u64) {
        let woken = writer.wakeup;
        writer.head = next;
        let written = if self.backward {
            next.wrapping_neg()
        } else {
            next
        };
        if written.wrapping_sub(writer.wakeup) > self.watermark {
            writer.wakeup += self.watermark;
        }
        if self.wakeup_events > 0 {
            writer.events += 1;
            if writer.events >= self.wakeup_events {
                writer.events -= self.wakeup_events;
                writer.wakeup += 1;
            }
        }
        let head = self.words.word(perf_page::DATA_HEAD / WORD);
        head.store(writer.head, Ordering::Release);
        if writer.wakeup != woken {
            let events = PollEvents::IN | PollEvents::RDNORM;
            self.poll.store(events.bits(), Ordering::Release);
            self.signal.wake();
        }
    }

    /// Writes bytes at a position, a multiple of 8.
    fn put(&self, position: u64, bytes: &[u8]) {
        let size = self.len() - PAGE_SIZE;
        let mut place = usize::try_from(position & (self.size - 1)).expect("the data is in memory");
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(size - place));
            self.words.write((PAGE_SIZE + place) / WORD, now);
            rest = later;
            place = 0;
        }
    }
}

/// A `struct perf_event_header` as a word.
fn header(record: u32, misc: u16, size: u16) -> u64 {
    let [a, b, c, d] = record.to_ne_bytes();
    let ([e, f], [g, h]) = (misc.to_ne_bytes(), size.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
