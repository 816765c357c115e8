//! Objects that programs allocate: what kptrs point to, and what lists and trees are made of.
//!
//! An object lives while there is a reference ([`Owned`]); with the last one goes what its fields hold. Its bytes can still be
//! read by those who found it before, as the kernel frees memory only when no program can have it any more.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_obj_new_impl`, `__bpf_obj_drop_impl`, `bpf_refcount_acquire_impl` (v6.18).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::Value;
use super::holdings::Holdings;
use crate::btf::{Btf, FieldKind, Fields};
use crate::env::Env;
use crate::store::{WORD, Words};

/// What an object is: a struct of a BTF blob, for all CPUs or one for each.
#[derive(Clone, Debug)]
pub struct ObjectType {
    /// The blob.
    pub btf: Arc<Btf>,
    /// The struct in it.
    pub type_id: u32,
    /// Each CPU has one.
    pub is_percpu: bool,
}

impl PartialEq for ObjectType {
    /// One blob that was loaded twice is two.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.btf, &other.btf)
            && self.type_id == other.type_id
            && self.is_percpu == other.is_percpu
    }
}

/// An object; see the module.
pub struct Allocated {
    /// What it is.
    pub object_type: ObjectType,
    size: u32,
    fields: Fields,
    words: Words,
    /// Words of one CPU's object.
    part: usize,
    holdings: Option<Box<Holdings>>,
    /// Where its nodes are, by their offsets in the struct.
    nodes: Mutex<HashMap<u32, Membership>>,
    references: AtomicU32,
    env: Arc<Env>,
}

/// A node that is in a list or a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The address of the list or tree.
    pub root: usize,
    /// Of trees: which node.
    pub number: usize,
}

/// A reference to an object; the object is freed with the last one.
#[derive(Debug)]
pub struct Owned(Arc<Allocated>);

impl Owned {
    /// A new object. The bytes are zeros, which is one of the things that they can be in the kernel. `None` if the type is no
    /// struct, or there is no memory.
    pub fn new(env: &Arc<Env>, object_type: ObjectType) -> Option<Self> {
        let (size, fields) = object_type.btf.object(object_type.type_id)?;
        let part = (size as usize).div_ceil(WORD);
        let n_parts = if object_type.is_percpu {
            env.nr_cpus
        } else {
            1
        };
        let words = Words::new(part * n_parts as usize).ok()?;
        env.object_allocated();
        Some(Self(Arc::new(Allocated {
            size,
            words,
            part,
            holdings: Holdings::of(&fields, Some(&object_type.btf)),
            fields,
            object_type,
            nodes: Mutex::default(),
            references: AtomicU32::new(1),
            env: Arc::clone(env),
        })))
    }

    /// The object.
    pub const fn object(&self) -> &Arc<Allocated> {
        &self.0
    }
}

impl Drop for Owned {
    /// Kernel: `__bpf_obj_drop_impl`.
    fn drop(&mut self) {
        if self.0.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(holdings) = &self.0.holdings {
                drop(holdings.take(&self.0.words, 0));
            }
            self.0.env.object_freed();
        }
    }
}

impl Allocated {
    /// One more reference; `None` if the last one is gone.
    pub fn acquire(self: &Arc<Self>) -> Option<Owned> {
        let acquired =
            self.references
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |references| {
                    (references != 0).then(|| references + 1)
                });
        acquired.ok().map(|_| Owned(Arc::clone(self)))
    }

    /// It has a `struct bpf_refcount`.
    pub fn is_counted(&self) -> bool {
        let mut fields = self.fields.0.iter();
        fields.any(|field| field.kind == FieldKind::Refcount)
    }

    /// The object; of a per-CPU one, the first CPU's.
    pub fn value(&self) -> Value<'_> {
        self.value_of(0)
    }

    /// A CPU's object, if there is such a CPU.
    pub fn part(&self, cpu: u32) -> Option<Value<'_>> {
        (cpu < self.env.nr_cpus).then(|| self.value_of(cpu))
    }

    /// A CPU's object.
    pub fn value_of(&self, cpu: u32) -> Value<'_> {
        let at = self.part * cpu as usize;
        Value::in_block(&self.words, at, self.size, &self.fields)
            .with_holdings(self.holdings.as_deref())
    }

    /// Where the node at that offset is.
    pub fn membership(&self, node: u32) -> Option<Membership> {
        self.nodes.lock().get(&node).copied()
    }

    /// The node at that offset goes to a list or tree; false if it is in one.
    pub(super) fn join(&self, node: u32, root: usize) -> bool {
        let mut nodes = self.nodes.lock();
        let is_free = !nodes.contains_key(&node);
        if is_free {
            nodes.insert(node, Membership { root, number: 0 });
        }
        is_free
    }

    /// The node at that offset has this number in its tree.
    pub(super) fn number(&self, node: u32, number: usize) {
        if let Some(membership) = self.nodes.lock().get_mut(&node) {
            membership.number = number;
        }
    }

    /// The node at that offset is in no list and no tree.
    pub(super) fn leave(&self, node: u32) {
        self.nodes.lock().remove(&node);
    }
}

impl fmt::Debug for Allocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let references = self.references.load(Ordering::Relaxed);
        write!(f, "object of {} bytes, {references} references", self.size)
    }
}
