//! References to objects of the kernel, and kptrs to them: processes and cgroups, which are declared.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_task_acquire`, `bpf_cgroup_acquire` (v6.18).

use std::marker::PhantomData;
use std::thread;

use super::Prog;
use super::allocated::{kptr, refused};
use crate::abi::Errno;
use crate::map::Value;
use crate::map::graph::{Pointee, Root};
use crate::map::object::{Object, OtherKind};

/// An owning reference to a process or a cgroup.
#[must_use = "a program that ends with it is not loaded"]
#[derive(Debug)]
pub struct Acquired {
    object: Option<Object>,
    /// Not for other threads.
    _on_one_cpu: PhantomData<*const ()>,
}

impl Acquired {
    const fn new(object: Object) -> Self {
        Self {
            object: Some(object),
            _on_one_cpu: PhantomData,
        }
    }

    /// The process or cgroup.
    ///
    /// # Panics
    ///
    /// Never: it is there until the reference goes.
    pub fn object(&self) -> &Object {
        let object = self.object.as_ref();
        object.expect("it is there until it is taken")
    }

    fn into_object(mut self) -> Object {
        self.object.take().expect("it is there until it is taken")
    }
}

impl Drop for Acquired {
    fn drop(&mut self) {
        if self.object.is_some() && !thread::panicking() {
            refused(
                Errno::EINVAL,
                "the program ends with a reference that it does not release",
            );
        }
    }
}

/// References to processes and cgroups.
impl Prog {
    /// A reference to a process; `None` if it is gone.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: types of programs that cannot do this, an object that is no process.
    #[doc(alias = "bpf_task_acquire")]
    #[track_caller]
    pub fn task_acquire(&self, task: &Object) -> Option<Acquired> {
        self.enter_with(task, TASK);
        let has_ended = matches!(task, Object::Other(task) if task.has_ended());
        (!has_ended).then(|| Acquired::new(task.clone()))
    }

    /// Gives a reference to a process back.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: one to something else.
    #[doc(alias = "bpf_task_release")]
    #[track_caller]
    pub fn task_release(&self, task: Acquired) {
        self.enter_with(task.object(), TASK);
        drop(task.into_object());
    }

    /// A reference to a cgroup.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: types of programs that cannot do this, an object that is no cgroup.
    #[doc(alias = "bpf_cgroup_acquire")]
    #[track_caller]
    pub fn cgroup_acquire(&self, cgroup: &Object) -> Acquired {
        self.enter_with(cgroup, CGROUP);
        Acquired::new(cgroup.clone())
    }

    /// Gives a reference to a cgroup back.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: one to something else.
    #[doc(alias = "bpf_cgroup_release")]
    #[track_caller]
    pub fn cgroup_release(&self, cgroup: Acquired) {
        self.enter_with(cgroup.object(), CGROUP);
        drop(cgroup.into_object());
    }

    /// Puts a reference to a process or cgroup, or nothing, into the kptr at that byte of a value, and takes out what was
    /// there.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no kptr there, or one to something else; a lock that is held. Kptrs to other objects of
    /// the kernel are not emulated.
    #[doc(alias = "bpf_kptr_xchg")]
    #[track_caller]
    pub fn kptr_xchg_acquired(
        &self,
        value: &Value<'_>,
        offset: usize,
        new: Option<Acquired>,
    ) -> Option<Acquired> {
        self.no_lock_held();
        let kptr = kptr(value, offset);
        let wanted = struct_of(&kptr);
        if new
            .as_ref()
            .is_some_and(|new| struct_name(new.object()) != Some(wanted))
        {
            refused(Errno::EACCES, "the kptr is for objects of another type");
        }
        let new = new.map(|new| Pointee::Kernel(new.into_object()));
        match kptr.swap(new)? {
            Pointee::Kernel(old) => Some(Acquired::new(old)),
            Pointee::Allocated(_) => unreachable!("a kptr holds objects of its type"),
        }
    }

    /// Loads the kptr to a process or cgroup at that byte of a value, without taking the reference out.
    ///
    /// # Panics
    ///
    /// As [`Prog::kptr_xchg_acquired`].
    #[track_caller]
    pub fn kptr_load_object(&self, value: &Value<'_>, offset: usize) -> Option<Object> {
        let kptr = kptr(value, offset);
        struct_of(&kptr);
        kptr.load_kernel()
    }

    #[track_caller]
    fn enter_with(&self, object: &Object, wanted: &str) {
        self.objects_allowed();
        self.no_lock_held();
        if struct_name(object) != Some(wanted) {
            refused(
                Errno::EINVAL,
                "this function is for objects of another type",
            );
        }
    }
}

const TASK: &str = "task_struct";
const CGROUP: &str = "cgroup";

/// The kernel's struct that is behind an object, of those that kptrs point to here.
fn struct_name(object: &Object) -> Option<&'static str> {
    match object {
        Object::Cgroup(_) => Some(CGROUP),
        Object::Other(other) if other.kind == OtherKind::Pidfd => Some(TASK),
        Object::Other(other) if other.kind == OtherKind::Cgroup1 => Some(CGROUP),
        Object::Map(_) | Object::Btf(_) | Object::Prog(_) | Object::Other(_) => None,
    }
}

/// The kernel's struct that a kptr is for.
#[track_caller]
fn struct_of(kptr: &Root<'_>) -> &'static str {
    let Some(name) = kptr.kernel_struct() else {
        refused(
            Errno::EACCES,
            "the kptr is for objects that programs allocate",
        );
    };
    assert!(
        [TASK, CGROUP].contains(&name),
        "mapemu does not emulate kptrs to struct {name} yet"
    );
    name
}
