//! All that comes from outside the maps: CPUs, memory, the release of the kernel, chance, the time.
//!
//! The clock stands still until somebody moves it on: see [`Env::advance`].

mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::abi::Errno;

pub use crate::abi::PAGE_SIZE;
pub use release::{KptrTags, LINUX_6_18_44, RELEASES, Release, Taken, UnknownRelease};

/// What one kernel's maps stand in. The same calls in the same `Env` give the same answers.
#[derive(Debug)]
pub struct Env {
    /// Number of possible CPUs, numbered from 0.
    pub nr_cpus: u32,
    /// The release whose behaviour is given.
    pub release: &'static Release,
    /// Bytes that all maps together may take; past that, `ENOMEM`.
    pub memory_limit: u64,
    /// What happens where this crate does not know the kernel's answer.
    pub unsupported: Unsupported,
    refusal: OnceLock<fn(fmt::Arguments<'_>) -> Errno>,
    /// The memory of ring buffers holds their data twice.
    pub doubled_rings: bool,
    random: AtomicU64,
    memory_used: AtomicU64,
    /// Indexes of the network interfaces.
    interfaces: RwLock<BTreeSet<u32>>,
    socket_cookies: AtomicU64,
    allocated_objects: AtomicU64,
    agenda: Mutex<Agenda>,
}

/// The interface `lo`, which every network has.
const LOOPBACK: u32 = 1;

/// What happens where a request cannot be emulated yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unsupported {
    /// A panic that names the request: nobody mistakes it for the kernel's answer.
    #[default]
    Panic,
    /// That errno, for callers who would rather go on.
    Errno(Errno),
}

impl Env {
    /// An environment with nothing used.
    pub fn new(
        nr_cpus: u32,
        release: &'static Release,
        seed: u64,
        memory_limit: u64,
        unsupported: Unsupported,
    ) -> Self {
        Self {
            nr_cpus,
            release,
            memory_limit,
            unsupported,
            refusal: OnceLock::new(),
            doubled_rings: false,
            random: AtomicU64::new(seed),
            memory_used: AtomicU64::new(0),
            interfaces: RwLock::new(BTreeSet::from([LOOPBACK])),
            socket_cookies: AtomicU64::new(1),
            allocated_objects: AtomicU64::new(0),
            agenda: Mutex::new(Agenda::default()),
        }
    }

    /// There is a network interface of that index from now on. (`lo`, 1, is there from the start.)
    pub fn add_interface(&self, ifindex: u32) {
        self.interfaces.write().insert(ifindex);
    }

    /// There is no network interface of that index any more; the maps have to be told too.
    pub fn remove_interface(&self, ifindex: u32) {
        self.interfaces.write().remove(&ifindex);
    }

    /// There is a network interface of that index.
    pub fn has_interface(&self, ifindex: u32) -> bool {
        self.interfaces.read().contains(&ifindex)
    }

    /// The number of the next socket that is asked for one.
    pub fn next_socket_cookie(&self) -> u64 {
        self.socket_cookies.fetch_add(1, Ordering::Relaxed)
    }

    /// How many objects there are that programs allocated (`bpf_obj_new`) and nothing released yet.
    pub fn allocated_objects(&self) -> u64 {
        self.allocated_objects.load(Ordering::Relaxed)
    }

    /// A program allocated an object.
    pub fn object_allocated(&self) {
        self.allocated_objects.fetch_add(1, Ordering::Relaxed);
    }

    /// The last reference to such an object is gone.
    pub fn object_freed(&self) {
        self.allocated_objects.fetch_sub(1, Ordering::Relaxed);
    }

    /// The next random number: of a hash's seed, say. (SplitMix64 of the environment's seed.)
    pub fn random(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .random
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Takes `bytes` from the memory limit; gives them back with [`Env::uncharge`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` if that is more than is left.
    pub fn charge(&self, bytes: u64) -> Result<(), Errno> {
        self.memory_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|&used| used <= self.memory_limit)
            })
            .map(|_| ())
            .map_err(|_| Errno::ENOMEM)
    }

    /// Gives memory back.
    pub fn uncharge(&self, bytes: u64) {
        self.memory_used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What cannot be emulated: the errno that the user chose for it, or a panic that names it.
    pub fn unsupported(&self, what: fmt::Arguments<'_>) -> Errno {
        match (self.unsupported, self.refusal.get()) {
            (Unsupported::Errno(errno), _) => errno,
            (Unsupported::Panic, Some(refuse)) => refuse(what),
            (Unsupported::Panic, None) => panic!("mapemu does not emulate {what} yet"),
        }
    }

    /// Programs are attached to perf events of that type (`PERF_TYPE_*`): tracepoints, and those that the running system has
    /// numbers for (kprobes and uprobes). Others are counters of the machine.
    pub fn is_for_attaching(&self, perf_type: u32) -> bool {
        const TRACEPOINT: u32 = 2;
        let told = |source| {
            std::fs::read_to_string(format!("/sys/bus/event_source/devices/{source}/type"))
        };
        let is_that = |source| told(source).is_ok_and(|told| told.trim().parse() == Ok(perf_type));
        perf_type == TRACEPOINT || is_that("kprobe") || is_that("uprobe")
    }

    /// From here on `refuse` is called where a panic would name what cannot be emulated: for a front end whose callers cannot
    /// be unwound. It names it, and gives the errno.
    pub fn refuse_with(&self, refuse: fn(fmt::Arguments<'_>) -> Errno) {
        // A second front end refuses as the first does.
        let _ = self.refusal.set(refuse);
    }
}

/// The clock, and what is to be done when it gets somewhere.
#[derive(Default)]
struct Agenda {
    now: u64,
    /// Jobs given so far.
    given: u64,
    jobs: BTreeMap<Appointment, Job>,
}

/// What is done; it is told which appointment it has.
type Job = Box<dyn FnOnce(Appointment) + Send>;

/// When a job is done. They are in order: by time, and for the same time the one that was given first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Appointment {
    ns: u64,
    number: u64,
}

/// The clock stops there. The kernel's does, too.
pub const END_OF_TIME: u64 = i64::MAX as u64;

impl Env {
    /// The time in nanoseconds; 0 at first. All clocks of the kernel show the same.
    pub fn now_ns(&self) -> u64 {
        self.agenda.lock().now
    }

    /// `job` is done by [`Env::advance`], as the clock gets to `ns`; with what is due already, if that has passed; never,
    /// if it is behind the end of time.
    pub fn schedule(&self, ns: u64, job: impl FnOnce(Appointment) + Send + 'static) -> Appointment {
        let mut agenda = self.agenda.lock();
        let number = agenda.given;
        agenda.given += 1;
        let appointment = Appointment { ns, number };
        agenda.jobs.insert(appointment, Box::new(job));
        appointment
    }

    /// The job will not be done; false if it has begun.
    pub fn unschedule(&self, appointment: Appointment) -> bool {
        let job = self.agenda.lock().jobs.remove(&appointment);
        job.is_some()
    }

    /// Moves the clock on, stopping wherever a job is due, and does the jobs.
    ///
    /// A job takes no time. What one gives for the very moment is not done before the clock moves on, or `advance` is
    /// called again; so this ends whatever the jobs do.
    pub fn advance(&self, ns: u64) {
        let end = self.now_ns().saturating_add(ns).min(END_OF_TIME);
        loop {
            let given = self.agenda.lock().given;
            while let Some((appointment, job)) = self.next_due(given) {
                job(appointment);
            }
            let mut agenda = self.agenda.lock();
            if agenda.now >= end {
                break;
            }
            let after_now = Appointment {
                ns: agenda.now + 1,
                number: 0,
            };
            let next = agenda.jobs.range(after_now..).next();
            agenda.now = next.map_or(end, |(next, _)| next.ns.min(end));
        }
    }

    /// Takes out the first job that is due, of the first ones that were given.
    fn next_due(&self, given: u64) -> Option<(Appointment, Job)> {
        let mut agenda = self.agenda.lock();
        let until_now = Appointment {
            ns: agenda.now,
            number: given,
        };
        let mut due = agenda.jobs.range(..until_now);
        let (&appointment, _) = due.find(|(due, _)| due.number < given)?;
        agenda.jobs.remove_entry(&appointment)
    }
}

impl fmt::Debug for Agenda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} jobs at {} ns", self.jobs.len(), self.now)
    }
}
