//! The program side: what a BPF program calls, for a program that is written in Rust and runs here.
//!
//! A [`Prog`] is one run of a program on one CPU. Its values are the places in the map, not copies: what it stores there
//! is seen at once by everybody. What the verifier would not have loaded panics, with the rule that it breaks;
//! [`verifier`] can be asked before.
//!
//! Kernel: `kernel/bpf/helpers.c` (v6.18).

mod acquired;
mod allocated;
mod cgroup;
mod graph;
mod perf;
mod redirect;
mod ring;
mod stack;
mod storage;
mod tail_call;
mod task_work;
mod timer;
pub mod verifier;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::abi::{Errno, Helper, ProgType, Result, UpdateFlags};
use crate::map::lock::SpinGuard;
use crate::map::{Map, Target, Value};
pub use acquired::Acquired;
pub use allocated::{Obj, ObjRef, Reference};
pub use ring::Record;
use storage::Storages;
pub use tail_call::{End, Programs};
use verifier::Refused;

/// One run of a program on one CPU.
///
/// It belongs to one thread, as a program does not leave its CPU.
#[derive(Debug)]
pub struct Prog {
    prog_type: ProgType,
    kind: verifier::Kind,
    cpu: u32,
    holds_lock: Cell<bool>,
    storages: RefCell<Storages>,
    /// Jumps so far.
    tail_calls: Cell<u32>,
    /// What [`Prog::target`] tells.
    target: Cell<Option<Target>>,
}

impl Prog {
    /// A run of a program of that type on that CPU.
    pub const fn new(prog_type: ProgType, cpu: u32) -> Self {
        Self {
            prog_type,
            kind: verifier::Kind::of(prog_type),
            cpu,
            holds_lock: Cell::new(false),
            storages: RefCell::new(Storages::OfRun(Vec::new())),
            tail_calls: Cell::new(0),
            target: Cell::new(None),
        }
    }

    /// A run of a program for packets at a network device: the least restricted kind.
    pub const fn sched_cls(cpu: u32) -> Self {
        Self::new(ProgType::SCHED_CLS, cpu)
    }

    /// The CPU it runs on.
    pub const fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Its type.
    pub const fn prog_type(&self) -> ProgType {
        self.prog_type
    }

    /// The value of a key, in place: of a per-CPU map, this CPU's part.
    ///
    /// # Panics
    ///
    /// What the verifier refuses; for maps of maps, see [`Prog::map_lookup_inner`].
    #[doc(alias = "bpf_map_lookup_elem")]
    #[inline]
    pub fn map_lookup_elem<'m>(&self, map: &'m Map, key: &[u8]) -> Option<Value<'m>> {
        self.enter(map, Helper::MAP_LOOKUP_ELEM);
        assert!(
            !map.def.map_type.is_map_in_map(),
            "what is found is a map: map_lookup_inner gives it"
        );
        key_of(map, key);
        let value = map.ops.lookup_elem(self.cpu, key)?;
        Some(value.limited(map.def.map_flags))
    }

    /// The map of a key, in a map of maps.
    ///
    /// # Panics
    ///
    /// What the verifier refuses; for other types of maps, see [`Prog::map_lookup_elem`].
    pub fn map_lookup_inner(&self, map: &Map, key: &[u8]) -> Option<Arc<Map>> {
        self.enter(map, Helper::MAP_LOOKUP_ELEM);
        assert!(
            map.def.map_type.is_map_in_map(),
            "what is found is no map: map_lookup_elem gives it"
        );
        key_of(map, key);
        map.ops.lookup_inner(key)
    }

    /// The value of a key on another CPU; `None` too if there is no such CPU.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_lookup_percpu_elem")]
    #[inline]
    pub fn map_lookup_percpu_elem<'m>(
        &self,
        map: &'m Map,
        key: &[u8],
        cpu: u32,
    ) -> Option<Value<'m>> {
        self.enter(map, Helper::MAP_LOOKUP_PERCPU_ELEM);
        key_of(map, key);
        let value = map.ops.lookup_percpu_elem(self.cpu, key, cpu)?;
        Some(value.limited(map.def.map_flags))
    }

    /// Makes or changes an element; of a per-CPU map, this CPU's part of the value.
    ///
    /// # Errors
    ///
    /// Those of the type of map.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_update_elem")]
    #[inline]
    pub fn map_update_elem(
        &self,
        map: &Map,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        self.enter(map, Helper::MAP_UPDATE_ELEM);
        key_of(map, key);
        value_of(map, value);
        map.ops.update_elem(self.cpu, key, value, flags)
    }

    /// Removes an element.
    ///
    /// # Errors
    ///
    /// Those of the type of map.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_delete_elem")]
    #[inline]
    pub fn map_delete_elem(&self, map: &Map, key: &[u8]) -> Result<()> {
        self.enter(map, Helper::MAP_DELETE_ELEM);
        key_of(map, key);
        map.ops.delete_elem(self.cpu, key)
    }

    /// Puts a value in a queue, a stack or a Bloom filter.
    ///
    /// # Errors
    ///
    /// Those of the type of map.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_push_elem")]
    pub fn map_push_elem(&self, map: &Map, value: &[u8], flags: UpdateFlags) -> Result<()> {
        self.enter(map, Helper::MAP_PUSH_ELEM);
        value_of(map, value);
        map.ops.push_elem(value, flags)
    }

    /// Takes a value out of a queue or stack.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `value` is zeros then.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_pop_elem")]
    pub fn map_pop_elem(&self, map: &Map, value: &mut [u8]) -> Result<()> {
        self.enter(map, Helper::MAP_POP_ELEM);
        value_of(map, value);
        map.ops.pop_elem(value).inspect_err(|_| value.fill(0))
    }

    /// Shows the value that would be taken out; of a Bloom filter, asks for `value`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_map_peek_elem")]
    pub fn map_peek_elem(&self, map: &Map, value: &mut [u8]) -> Result<()> {
        self.enter(map, Helper::MAP_PEEK_ELEM);
        value_of(map, value);
        map.ops.peek_elem(value)
    }

    /// Calls `callback` with key and value of each element until it answers `false`; the number of calls.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `flags` is not 0.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_for_each_map_elem")]
    pub fn for_each_map_elem(
        &self,
        map: &Map,
        flags: u64,
        mut callback: impl FnMut(&[u8], Value<'_>) -> bool,
    ) -> Result<u64> {
        self.enter(map, Helper::FOR_EACH_MAP_ELEM);
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        map.ops.for_each_elem(self.cpu, &mut |key, value| {
            let goes_on = callback(key, value.limited(map.def.map_flags));
            self.no_lock_held();
            goes_on
        })
    }

    /// Takes the `bpf_spin_lock` of a value; it is released by [`SpinLockGuard::spin_unlock`], or with the guard.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a value without a lock, a second lock.
    #[doc(alias = "bpf_spin_lock")]
    pub fn spin_lock<'v>(&'v self, value: &'v Value<'_>) -> SpinLockGuard<'v> {
        let allowed = match value.fields().spin_lock() {
            _ if self.holds_lock.get() => Err(verifier::LOCK_IS_HELD),
            _ if !value.has_fields() => Err(allocated::NO_FIELDS),
            Some(offset) => Ok(offset as usize),
            None => Err(Refused {
                errno: Errno::EINVAL,
                rule: "the map's value has no struct bpf_spin_lock",
            }),
        };
        let offset = allowed.unwrap_or_else(|refused| panic!("{refused}"));
        let guard = value.lock(offset);
        self.holds_lock.set(true);
        SpinLockGuard {
            prog: self,
            value,
            calls_back: Cell::new(false),
            guard: Some(guard),
            _on_one_cpu: PhantomData,
        }
    }

    /// What holds for every helper that takes a map.
    #[inline]
    #[track_caller]
    fn enter(&self, map: &Map, helper: Helper) {
        assert!(
            self.cpu < map.env.nr_cpus,
            "CPU {} of {}",
            self.cpu,
            map.env.nr_cpus
        );
        self.no_lock_held();
        if let Err(refused) = verifier::judge(map, helper, self.prog_type, self.kind) {
            panic!("{helper} on {}: {refused}", map.def.map_type);
        }
    }

    #[inline]
    #[track_caller]
    fn no_lock_held(&self) {
        assert!(!self.holds_lock.get(), "{}", verifier::LOCK_IS_HELD);
    }
}

/// Holds the `bpf_spin_lock` of a value. No helper can be called meanwhile; the lists and trees of the value can be used.
pub struct SpinLockGuard<'v> {
    prog: &'v Prog,
    value: &'v Value<'v>,
    /// The order of a tree is asked for.
    calls_back: Cell<bool>,
    guard: Option<SpinGuard<'v>>,
    /// Not for other threads.
    _on_one_cpu: PhantomData<*const ()>,
}

impl SpinLockGuard<'_> {
    /// Releases the lock.
    #[doc(alias = "bpf_spin_unlock")]
    pub fn spin_unlock(self) {
        drop(self);
    }
}

impl Drop for SpinLockGuard<'_> {
    fn drop(&mut self) {
        self.guard = None;
        self.prog.holds_lock.set(false);
    }
}

impl fmt::Debug for SpinLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpinLockGuard")
    }
}

/// A key has as many bytes as the map says.
#[inline]
#[track_caller]
fn key_of(map: &Map, key: &[u8]) {
    assert_eq!(
        key.len(),
        map.def.key_size as usize,
        "the verifier refuses (EACCES): bytes of a key"
    );
}

/// A value has as many bytes as the map says.
#[inline]
#[track_caller]
fn value_of(map: &Map, value: &[u8]) {
    assert_eq!(
        value.len(),
        map.def.value_size as usize,
        "the verifier refuses (EACCES): bytes of a value"
    );
}
