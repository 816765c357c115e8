//! `PerfEventArray`: perf events, and readers of what programs write to them.
//!
//! Source: `tools/lib/bpf/libbpf.c:bpf_perf_event_read_simple` (v6.18).

use std::sync::atomic::{Ordering, fence};

use super::Error;
use super::macros::{no_flags, places_of_fds, typed_map};
use crate::abi::{
    Errno, Fd, MapRequest, Mapping, PAGE_SIZE, PERF_HEADER_SIZE, PERF_RECORD_LOST,
    PERF_RECORD_SAMPLE, PerfEvent, Result as AbiResult, perf_page,
};

typed_map! {
    /// A map of type `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: perf events, mostly one for each CPU. Nothing comes out by key.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::helper::Prog;
    /// use mapemu::typed::PerfEventArray;
    ///
    /// let kernel = Kernel::new();
    /// let events = PerfEventArray::builder().max_entries(2).create(&kernel)?;
    /// let mut buffer = events.open(1, 1)?;
    /// let map = kernel.map(events.map().fd()).unwrap();
    /// Prog::sched_cls(1).perf_event_output(&map, 0xffff_ffff, b"hello").unwrap();
    ///
    /// let mut samples = Vec::new();
    /// let read = buffer.read_events(|sample| samples.push(sample.to_vec()))?;
    /// assert_eq!((read.read, read.lost), (1, 0));
    /// assert_eq!(samples, [b"hello\0\0\0\0\0\0\0"], "the kernel fills a sample up");
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    PerfEventArray: PERF_EVENT_ARRAY, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);

    /// Opens a perf event for the CPU of that number, with a buffer of so many pages of data (a power of two), and puts it at
    /// that index.
    ///
    /// # Errors
    ///
    /// What perf_event_open(2) answers, then mmap(2): `EINVAL` for such a number of pages; then as [`PerfEventArray::set`].
    #[doc(alias = "perf_event_open")]
    pub fn open(&self, cpu: u32, pages: usize) -> Result<PerfEventArrayBuffer<'_>, Error> {
        let bpf = self.map.bpf();
        let fd = bpf.perf_event_open(PerfEvent::bpf_output(cpu)).map_err(Error::of("perf_event_open"))?;
        let event = OwnedEvent { array: self, fd };
        // Of more bytes than there are, mmap(2) says that there is no room.
        let len = pages.saturating_add(1).saturating_mul(PAGE_SIZE);
        let request = MapRequest::shared(0, len, true);
        let memory = bpf.mmap(fd, request).map_err(Error::of("mmap"))?;
        self.set(cpu, fd, 0)?;
        Ok(PerfEventArrayBuffer {
            memory,
            size: pages * PAGE_SIZE,
            sample: Vec::new(),
            event,
        })
    }
}

/// The fd of an event; closed when dropped.
#[derive(Debug)]
struct OwnedEvent<'a> {
    array: &'a PerfEventArray,
    fd: Fd,
}

impl Drop for OwnedEvent<'_> {
    fn drop(&mut self) {
        // Whoever closed the fd by hand has closed it: nothing is left to do.
        let _ = self.array.map.bpf().close(self.fd);
    }
}

/// How many samples were read, and how many found no room before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Events {
    /// Samples that were read.
    pub read: usize,
    /// Samples that are lost.
    pub lost: u64,
}

/// The buffer of one event, and its reader.
///
/// There is to be one reader at a time. It does not wait: [`PerfEventArrayBuffer::read_events`] gives what is there.
#[derive(Debug)]
pub struct PerfEventArrayBuffer<'a> {
    memory: Box<dyn Mapping>,
    /// Bytes of data.
    size: usize,
    sample: Vec<u8>,
    event: OwnedEvent<'a>,
}

impl PerfEventArrayBuffer<'_> {
    /// The event's fd.
    pub fn fd(&self) -> Fd {
        self.event.fd
    }

    /// There are records to read.
    ///
    /// # Errors
    ///
    /// None, as long as the memory is mapped.
    pub fn readable(&self) -> Result<bool, Error> {
        let positions = self.positions().map_err(Error::of("perf_event_read"))?;
        Ok(positions.0 != positions.1)
    }

    /// Hands all samples to a callback, the oldest first. A sample ends with what the kernel fills it up with, so that its
    /// length and the 4 bytes before it are a multiple of 8.
    ///
    /// # Errors
    ///
    /// `EFAULT` at what is no record, or one that reaches out of the data: somebody else moved the reader's position, or a
    /// record of 64 KiB or more was written over others.
    pub fn read_events(&mut self, mut callback: impl FnMut(&[u8])) -> Result<Events, Error> {
        self.read(&mut callback)
            .map_err(Error::of("perf_event_read"))
    }

    fn read(&mut self, callback: &mut dyn FnMut(&[u8])) -> AbiResult<Events> {
        let (mut tail, head) = self.positions()?;
        let mut events = Events::default();
        while tail != head {
            let mut header = [0; PERF_HEADER_SIZE];
            self.read_at(tail, &mut header)?;
            let [a, b, c, d, _, _, size @ ..] = header;
            let mut body = tail.wrapping_add(PERF_HEADER_SIZE as u64);
            match u32::from_ne_bytes([a, b, c, d]) {
                PERF_RECORD_SAMPLE => {
                    let mut len = [0; 4];
                    self.read_at(body, &mut len)?;
                    body = body.wrapping_add(4);
                    if u32::from_ne_bytes(len) as usize > self.size {
                        return Err(Errno::EFAULT);
                    }
                    let mut sample = std::mem::take(&mut self.sample);
                    sample.resize(u32::from_ne_bytes(len) as usize, 0);
                    self.read_at(body, &mut sample)?;
                    callback(&sample);
                    self.sample = sample;
                    events.read += 1;
                }
                PERF_RECORD_LOST => {
                    let mut lost = [0; 8];
                    self.read_at(body.wrapping_add(8), &mut lost)?;
                    events.lost += u64::from_ne_bytes(lost);
                }
                _ => {}
            }
            let size = u16::from_ne_bytes(size);
            if usize::from(size) < PERF_HEADER_SIZE {
                // No record: without this the reader would stay here.
                return Err(Errno::EFAULT);
            }
            tail = tail.wrapping_add(u64::from(size));
            fence(Ordering::Release);
            let at = perf_page::DATA_TAIL;
            self.memory.write(at, &tail.to_ne_bytes())?;
        }
        Ok(events)
    }

    /// Where the reader is, and where the next record will begin.
    fn positions(&self) -> AbiResult<(u64, u64)> {
        let (mut tail, mut head) = ([0; 8], [0; 8]);
        self.memory.read(perf_page::DATA_TAIL, &mut tail)?;
        self.memory.read(perf_page::DATA_HEAD, &mut head)?;
        fence(Ordering::Acquire);
        Ok((u64::from_ne_bytes(tail), u64::from_ne_bytes(head)))
    }

    /// Copies bytes of the data out, from a position on.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cut to the size of the data, a power of two"
    )]
    fn read_at(&self, position: u64, out: &mut [u8]) -> AbiResult<()> {
        let place = position as usize & self.size.wrapping_sub(1);
        if place >= self.size {
            return Err(Errno::EFAULT);
        }
        let (now, later) = out.split_at_mut(out.len().min(self.size - place));
        self.memory.read(PAGE_SIZE + place, now)?;
        self.memory.read(PAGE_SIZE, later)
    }
}
