//! An emulated kernel with one planted error: most answers are right.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each error is in one place, and nowhere else"
)]

use std::collections::HashMap;
use std::sync::Mutex;

use mapemu::abi::{
    Bpf, Caps, Cmd, Errno, Fd, MapRequest, Mapping, Memory, PollEvents, ProgType, Result, UserMem,
};
use mapemu::calls::{
    bpf_map_delete_elem, bpf_map_get_next_key, bpf_map_lookup_elem, bpf_map_push_elem,
    bpf_map_update_elem,
};
use mapemu::trace::world::{
    AtomicOp, Drain, Event, FileKind, FileOp, ForEach, HelperAnswer, HelperCall, MapFacts,
    PerfEventKind, ProgRequest, Ran, Sample, Seen, SocketRequest, Step, StepAnswer, StorageCall,
    Write,
};
use mapemu::trace::{Emulated, RingStep, Stop, World};

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A command has another errno.
    Errno(Cmd, Errno, Errno),
    /// A command that fails so says that it did not.
    Silent(Cmd, Errno),
    /// A command is done as if it were another one.
    Instead(Cmd, Cmd),
    /// An update with a flag that it may have is done as if without.
    IgnoresFlag(u64),
    /// An update of what is full, with `BPF_EXIST`, is not done.
    KeepsTheOldest,
    /// A lookup gives the last byte of the value that was there before.
    StaleByte,
    /// A walk passes over the first key.
    SkipsTheFirst,
    /// What is evicted is not the oldest, but another one.
    OtherVictim,
    /// The part of the last CPU is that of the first.
    OneCpu,
    /// A prefix is a bit shorter than it says.
    ShorterPrefix,
    /// A batch that ends early counts one more.
    BatchCount,
    /// mmap(2) has another errno.
    Mmap(Errno, Errno),
    /// A helper returns another number.
    Helper(&'static str, i64, i64),
    /// A helper of timers returns another number.
    Timer(i64, i64),
    /// An atomic operation gives what is there afterwards.
    GivesTheNew,
    /// A lookup by a program finds nothing where the key ends in a zero.
    LosesZeros,
    /// A walk of a program sees the first two elements in the other order.
    SwapsTheFirst,
    /// What is deleted by a program stays.
    KeepsStorage,
    /// Records that were discarded count as there.
    RingQuery,
    /// A drain counts one more.
    DrainCount,
}

/// A map and a key.
type Place = (Fd, Vec<u8>);

/// An emulated kernel with an error in it.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Emulated,
    fault: Fault,
    /// Values that were there before the last update, by map and key.
    before: Mutex<HashMap<Place, Vec<u8>>>,
}

/// The attr of the element commands.
struct Elem {
    fd: Fd,
    key: u64,
    value: u64,
    flags: u64,
}

impl Elem {
    fn read(attr: u64, size: u32, mem: &Memory<'_>) -> Option<Self> {
        let mut bytes = [0; 32];
        mem.read(attr, &mut bytes[..(size as usize).min(32)]).ok()?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Some(Self {
            fd: u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")),
            key: word(8),
            value: word(16),
            flags: word(24),
        })
    }
}

impl Faulty {
    pub(crate) fn new(inner: Emulated, fault: Fault) -> Self {
        let before = Mutex::default();
        Self {
            inner,
            fault,
            before,
        }
    }

    fn value_len(&self, facts: &MapFacts) -> usize {
        if facts.map_type.is_percpu() {
            facts.value_size.next_multiple_of(8) * self.inner.bpf().nr_cpus() as usize
        } else {
            facts.value_size
        }
    }

    fn key(&self, elem: &Elem, mem: &Memory<'_>) -> Option<(MapFacts, Vec<u8>)> {
        let facts = self.inner.map_facts(elem.fd)?;
        let mut key = vec![0; facts.key_size];
        mem.read(elem.key, &mut key).ok()?;
        Some((facts, key))
    }

    fn value(&self, fd: Fd, facts: &MapFacts, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0; self.value_len(facts)];
        bpf_map_lookup_elem(self.inner.bpf(), fd, key, &mut value).ok()?;
        Some(value)
    }

    /// All elements.
    fn elements(&self, fd: Fd, facts: &MapFacts) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut elements: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut next = vec![0; facts.key_size];
        loop {
            let last = elements.last().map(|(key, _)| key.as_slice());
            if bpf_map_get_next_key(self.inner.bpf(), fd, last, &mut next).is_err() {
                return elements;
            }
            let value = self.value(fd, facts, &next).unwrap_or_default();
            elements.push((next.clone(), value));
        }
    }

    /// An update after which another element is missing than the one that was evicted.
    fn evict_another(
        &self,
        elem: &Elem,
        mem: &mut Memory<'_>,
        update: impl FnOnce(&mut Memory<'_>) -> Result<u32>,
    ) -> Result<u32> {
        let Some((facts, key)) = self.key(elem, mem) else {
            return update(mem);
        };
        let before = self.elements(elem.fd, &facts);
        let answer = update(mem)?;
        let after = self.elements(elem.fd, &facts);
        let gone = before
            .iter()
            .find(|(own, _)| !after.iter().any(|(other, _)| own == other));
        let other = after.iter().find(|(own, _)| *own != key);
        if let (Some((gone, value)), Some((other, _))) = (gone, other) {
            bpf_map_delete_elem(self.inner.bpf(), elem.fd, other)?;
            bpf_map_update_elem(self.inner.bpf(), elem.fd, gone, value, 0)?;
        }
        Ok(answer)
    }

    /// What comes before the command itself: an answer in its place, or nothing.
    fn instead(&self, cmd: Cmd, elem: &Elem, mem: &mut Memory<'_>) -> Option<Result<u32>> {
        match self.fault {
            Fault::KeepsTheOldest if cmd == Cmd::MAP_UPDATE_ELEM && elem.flags == 2 => {
                let facts = self.inner.map_facts(elem.fd)?;
                let mut value = vec![0; facts.value_size];
                mem.read(elem.value, &mut value).ok()?;
                let pushed = bpf_map_push_elem(self.inner.bpf(), elem.fd, &value, 0);
                (pushed != Err(Errno::EPERM)).then_some(Ok(0))
            }
            Fault::StaleByte if cmd == Cmd::MAP_UPDATE_ELEM => {
                let (facts, key) = self.key(elem, mem)?;
                let value = self.value(elem.fd, &facts, &key)?;
                self.before
                    .lock()
                    .expect("no panic")
                    .insert((elem.fd, key), value);
                None
            }
            Fault::ShorterPrefix if cmd == Cmd::MAP_LOOKUP_ELEM => {
                let (facts, mut key) = self.key(elem, mem)?;
                let (bits, _) = key.split_first_chunk_mut::<4>()?;
                *bits = u32::from_le_bytes(*bits).checked_sub(1)?.to_le_bytes();
                let value = self.value(elem.fd, &facts, &key);
                let value = value.filter(|_| elem.flags == 0)?;
                Some(mem.write(elem.value, &value).map(|()| 0))
            }
            Fault::SkipsTheFirst if cmd == Cmd::MAP_GET_NEXT_KEY && elem.key == 0 => {
                let facts = self.inner.map_facts(elem.fd)?;
                let (mut first, mut second) = (vec![0; facts.key_size], vec![0; facts.key_size]);
                bpf_map_get_next_key(self.inner.bpf(), elem.fd, None, &mut first).ok()?;
                bpf_map_get_next_key(self.inner.bpf(), elem.fd, Some(&first), &mut second).ok()?;
                Some(mem.write(elem.value, &second).map(|()| 0))
            }
            _ => None,
        }
    }

    /// What comes after the command: its answer, made wrong.
    fn falsify(
        &self,
        cmd: Cmd,
        elem: &Elem,
        mem: &mut Memory<'_>,
        attr: u64,
        answer: Result<u32>,
    ) -> Result<u32> {
        match self.fault {
            Fault::Errno(own, from, to) if own == cmd && answer == Err(from) => return Err(to),
            Fault::Silent(own, errno) if own == cmd && answer == Err(errno) => return Ok(0),
            Fault::StaleByte if cmd == Cmd::MAP_LOOKUP_ELEM && answer.is_ok() => {
                if let Some((facts, key)) = self.key(elem, mem) {
                    let before = self.before.lock().expect("no panic");
                    let last = self.value_len(&facts).saturating_sub(1);
                    if let Some(byte) = before.get(&(elem.fd, key)).and_then(|old| old.get(last)) {
                        mem.write(elem.value + last as u64, &[*byte])?;
                    }
                }
            }
            Fault::OneCpu if cmd == Cmd::MAP_LOOKUP_ELEM && answer.is_ok() => {
                if let Some(facts) = self.inner.map_facts(elem.fd) {
                    let mut first = vec![0; facts.value_size];
                    mem.read(elem.value, &mut first)?;
                    let last = self.value_len(&facts) - facts.value_size.next_multiple_of(8);
                    mem.write(elem.value + last as u64, &first)?;
                }
            }
            Fault::BatchCount if cmd == Cmd::MAP_LOOKUP_BATCH && answer == Err(Errno::ENOENT) => {
                let mut count = [0; 4];
                mem.read(attr + 32, &mut count)?;
                let count = u32::from_le_bytes(count) + 1;
                mem.write(attr + 32, &count.to_le_bytes())?;
            }
            _ => {}
        }
        answer
    }
}

impl Bpf for Faulty {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        let inner = self.inner.bpf();
        let Some(elem) = Elem::read(attr, size, mem) else {
            return inner.bpf(cmd, attr, size, mem);
        };
        if let Some(answer) = self.instead(cmd, &elem, mem) {
            return answer;
        }
        let answer = match self.fault {
            Fault::Instead(own, other) if own == cmd => inner.bpf(other, attr, size, mem),
            Fault::IgnoresFlag(flag) if cmd == Cmd::MAP_UPDATE_ELEM && elem.flags == flag => {
                mem.write(attr + 24, &[0; 8])?;
                let answer = inner.bpf(cmd, attr, size, mem);
                mem.write(attr + 24, &flag.to_le_bytes())?;
                answer
            }
            Fault::OtherVictim if cmd == Cmd::MAP_UPDATE_ELEM => {
                self.evict_another(&elem, mem, |mem| inner.bpf(cmd, attr, size, mem))
            }
            _ => inner.bpf(cmd, attr, size, mem),
        };
        self.falsify(cmd, &elem, mem, attr, answer)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        match (self.inner.bpf().mmap(fd, request), self.fault) {
            (Err(errno), Fault::Mmap(from, to)) if errno == from => Err(to),
            (answer, _) => answer,
        }
    }

    fn close(&self, fd: Fd) -> Result<()> {
        self.inner.bpf().close(fd)
    }

    fn poll(&self, fd: Fd, timeout: Option<std::time::Duration>) -> Result<PollEvents> {
        self.inner.bpf().poll(fd, timeout)
    }

    fn nr_cpus(&self) -> u32 {
        self.inner.bpf().nr_cpus()
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        self.inner.bpf().on_cpu(cpu)
    }
}

/// Methods that are those of the kernel inside.
macro_rules! as_inside {
    ($(fn $name:ident(&mut self $(, $argument:ident: $type:ty)*) $(-> $answer:ty)?;)*) => {
        $(fn $name(&mut self $(, $argument: $type)*) $(-> $answer)? {
            self.inner.$name($($argument),*)
        })*
    };
}

impl World for Faulty {
    fn bpf(&self) -> &dyn Bpf {
        self
    }

    fn map_facts(&self, fd: Fd) -> Option<MapFacts> {
        self.inner.map_facts(fd)
    }

    fn prog_id(&self, fd: Fd) -> Result<u32> {
        self.inner.prog_id(fd)
    }

    fn file_mode(&self, fd: Fd) -> Result<(u32, bool)> {
        self.inner.file_mode(fd)
    }

    fn fdinfo(&self, fd: Fd) -> Result<String> {
        self.inner.fdinfo(fd)
    }

    as_inside! {
        fn set_cpu(&mut self, cpu: u32) -> Result<()>;
        fn dup(&mut self, fd: Fd) -> Result<Fd>;
        fn open_file(&mut self, kind: FileKind) -> Result<Fd>;
        fn open_again(&mut self, fd: Fd) -> Result<Fd>;
        fn open_socket(&mut self, request: &SocketRequest<'_>) -> Result<Fd>;
        fn open_pidfd(&mut self, child: bool) -> Result<Fd>;
        fn end_child(&mut self, pidfd: Fd) -> Result<()>;
        fn open_perf_event(&mut self, kind: PerfEventKind, cpu: u32) -> Result<Fd>;
        fn file_op(&mut self, fd: Fd, op: FileOp) -> Result<()>;
        fn poll(&mut self, fd: Fd) -> Result<u32, Stop>;
        fn epoll(&mut self, fd: Fd, map_id: u32) -> Result<u32, Stop>;
        fn bpffs(&mut self) -> Result<String>;
        fn mkdir(&mut self, path: &str) -> Result<()>;
        fn unlink(&mut self, path: &str) -> Result<()>;
        fn set_caps(&mut self, caps: Option<Caps>) -> Result<()>;
        fn set_sysctl(&mut self, name: &str, value: u32) -> Result<()>;
        fn cgroup_create(&mut self, name: &str, under: Option<&str>) -> Result<(Fd, u64)>;
        fn cgroup_remove(&mut self, name: &str) -> Result<()>;
        fn settle(&mut self);
        fn prog_load(&mut self, request: &ProgRequest<'_>) -> Result<Fd, Stop>;
        fn trigger(&mut self, cgroup: &str, event: Event, writes: &[Write<'_>]) -> Result<Vec<Ran>, Stop>;
        fn prog_test_run(&mut self, prog: &str, writes: &[Write<'_>]) -> Result<Vec<Ran>, Stop>;
        fn only_verify(&mut self, only: bool);
        fn finish(&mut self);
    }

    fn helper(&mut self, call: &HelperCall<'_>) -> Result<HelperAnswer, Stop> {
        let answer = self.inner.helper(call)?;
        Ok(match (answer, self.fault) {
            (HelperAnswer::Ret(ret, value), Fault::Helper(helper, from, to))
                if call.helper == helper && ret == from =>
            {
                HelperAnswer::Ret(to, value)
            }
            (HelperAnswer::Value(_), Fault::LosesZeros) if call.key.ends_with(&[0]) => {
                HelperAnswer::Null { outer: false }
            }
            (answer, _) => answer,
        })
    }

    fn program(
        &mut self,
        map: Fd,
        facts: &MapFacts,
        prog_type: ProgType,
        steps: &[Step],
    ) -> Result<Vec<StepAnswer>, Stop> {
        let mut answers = self.inner.program(map, facts, prog_type, steps)?;
        for (answer, step) in answers.iter_mut().zip(steps) {
            match (answer, step, self.fault) {
                (StepAnswer::Number(ret), Step::Timer(..), Fault::Timer(from, to))
                    if *ret == from =>
                {
                    *ret = to;
                }
                (StepAnswer::Number(old), Step::Atomic(.., atomic), Fault::GivesTheNew)
                    if atomic.op == AtomicOp::Exchange =>
                {
                    *old = atomic.operand.cast_signed();
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    fn for_each(&mut self, walk: &ForEach<'_>) -> Result<(i64, Vec<Seen>), Stop> {
        let (ret, mut seen) = self.inner.for_each(walk)?;
        if matches!(self.fault, Fault::SwapsTheFirst) && seen.len() > 1 {
            seen.swap(0, 1);
        }
        Ok((ret, seen))
    }

    fn storage_helper(&mut self, call: &StorageCall<'_>) -> Result<HelperAnswer, Stop> {
        if call.delete && matches!(self.fault, Fault::KeepsStorage) {
            return Ok(HelperAnswer::Ret(0, None));
        }
        self.inner.storage_helper(call)
    }

    fn ringbuf(&mut self, map: Fd, facts: &MapFacts, steps: &[RingStep]) -> Result<Vec<i64>, Stop> {
        let mut answers = self.inner.ringbuf(map, facts, steps)?;
        if matches!(self.fault, Fault::RingQuery) {
            let numbers = answers.iter_mut().zip(steps);
            for (number, _) in numbers.filter(|(_, step)| matches!(step, RingStep::Query(0))) {
                *number += 8 * i64::from(*number > 0);
            }
        }
        Ok(answers)
    }

    fn user_ringbuf_drain(&mut self, drain: &Drain) -> Result<(i64, Vec<Sample>), Stop> {
        let (count, samples) = self.inner.user_ringbuf_drain(drain)?;
        let more = i64::from(matches!(self.fault, Fault::DrainCount) && count > 0);
        Ok((count + more, samples))
    }
}
