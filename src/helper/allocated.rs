//! Objects that programs allocate, and kptrs to them.
//!
//! An owning reference ([`Obj`]) has to go somewhere before the program ends: into a kptr, a list or a tree, or back to the
//! kernel. Other references ([`ObjRef`]) end with the lock under which they were found, or with the program. What an object
//! was is gone with the `Obj`, so the rules on use after release are the compiler's here.
//!
//! How many objects there are, [`Env::allocated_objects`](crate::env::Env::allocated_objects) tells.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_obj_new_impl`, `bpf_kptr_xchg` (v6.18).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;

use super::Prog;
use super::verifier::{self, Refused};
use crate::abi::Errno;
use crate::btf::FieldKind;
use crate::map::allocated::{Allocated, ObjectType, Owned};
use crate::map::graph::{Pointee, Root};
use crate::map::{Map, Value};

/// Bytes of the largest per-CPU object.
const MAX_PERCPU_SIZE: u32 = 512;

/// A lock, kptr, list or tree of an object that the program has no reference to.
pub(super) const NO_FIELDS: Refused = Refused {
    errno: Errno::EACCES,
    rule: "the fields of an object are used by who has a reference to it",
};

#[track_caller]
pub(super) fn refused(errno: Errno, rule: &'static str) -> ! {
    panic!("{}", Refused { errno, rule })
}

/// An owning reference to an object.
#[must_use = "a program that ends with it is not loaded"]
pub struct Obj {
    owned: Option<Owned>,
    /// Not for other threads.
    _on_one_cpu: PhantomData<*const ()>,
}

/// A reference to an object that belongs to somebody else.
#[derive(Clone)]
pub struct ObjRef<'p> {
    object: Arc<Allocated>,
    _until: PhantomData<&'p Prog>,
}

/// A reference, owning or not.
pub trait Reference: sealed::Sealed {
    /// The object.
    #[doc(hidden)]
    fn object(&self) -> &Arc<Allocated>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Obj {}
    impl Sealed for super::ObjRef<'_> {}
}

impl Obj {
    pub(super) const fn new(owned: Owned) -> Self {
        Self {
            owned: Some(owned),
            _on_one_cpu: PhantomData,
        }
    }

    pub(super) fn into_owned(mut self) -> Owned {
        self.owned.take().expect("it is there until it is taken")
    }

    /// Its bytes and its fields. Loads and stores are those of a map's value.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a per-CPU object.
    #[track_caller]
    pub fn value(&self) -> Value<'_> {
        value(self.object())
    }
}

impl ObjRef<'_> {
    pub(super) const fn new(object: Arc<Allocated>) -> Self {
        Self {
            object,
            _until: PhantomData,
        }
    }

    /// Its bytes. Loads and stores are those of a map's value.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a per-CPU object.
    #[track_caller]
    pub fn value(&self) -> Value<'_> {
        value(&self.object).without_fields()
    }
}

#[track_caller]
fn value(object: &Allocated) -> Value<'_> {
    if object.object_type.is_percpu {
        refused(
            Errno::EACCES,
            "of a per-CPU object, this_cpu_ptr and per_cpu_ptr give what is there",
        );
    }
    object.value()
}

impl Reference for Obj {
    fn object(&self) -> &Arc<Allocated> {
        let owned = self.owned.as_ref();
        owned.expect("it is there until it is taken").object()
    }
}

impl Reference for ObjRef<'_> {
    fn object(&self) -> &Arc<Allocated> {
        &self.object
    }
}

impl Drop for Obj {
    fn drop(&mut self) {
        if self.owned.is_some() && !thread::panicking() {
            refused(
                Errno::EINVAL,
                "the program ends with a reference that it does not release",
            );
        }
    }
}

/// Objects.
impl Prog {
    /// Allocates an object: a struct of the map's BTF, which stands for the program's. Its bytes are not initialized in the
    /// kernel, and zeros here. `None` if there is no memory.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: types of programs that cannot do this, a map without BTF, a type that is no struct.
    #[doc(alias = "bpf_obj_new")]
    #[track_caller]
    pub fn obj_new(&self, map: &Map, type_id: u32) -> Option<Obj> {
        self.objects_allowed();
        self.no_lock_held();
        Owned::new(&map.env, type_of(map, type_id, false)).map(Obj::new)
    }

    /// Gives a reference back; the object goes with the last one, and with it what its fields hold.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: a per-CPU object.
    #[doc(alias = "bpf_obj_drop")]
    #[track_caller]
    pub fn obj_drop(&self, object: Obj) {
        self.release(object, false);
    }

    /// Allocates an object for each CPU, of zeros. `None` if there is no memory.
    ///
    /// # Panics
    ///
    /// What the verifier refuses, as for [`Prog::obj_new`]; a struct of more than 512 bytes, or of anything but numbers.
    #[doc(alias = "bpf_percpu_obj_new")]
    #[track_caller]
    pub fn percpu_obj_new(&self, map: &Map, type_id: u32) -> Option<Obj> {
        self.objects_allowed();
        self.no_lock_held();
        let object_type = type_of(map, type_id, true);
        let btf = &object_type.btf;
        let (size, fields) = btf.object(type_id).expect("it is a struct");
        if size > MAX_PERCPU_SIZE {
            refused(Errno::EINVAL, "a per-CPU object has at most 512 bytes");
        }
        if !fields.is_empty() || !btf.is_scalar_struct(type_id) {
            refused(Errno::EINVAL, "a per-CPU object has numbers only");
        }
        Owned::new(&map.env, object_type).map(Obj::new)
    }

    /// Gives a reference to a per-CPU object back.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: another object.
    #[doc(alias = "bpf_percpu_obj_drop")]
    #[track_caller]
    pub fn percpu_obj_drop(&self, object: Obj) {
        self.release(object, true);
    }

    #[track_caller]
    fn release(&self, object: Obj, is_percpu: bool) {
        self.objects_allowed();
        self.no_lock_held();
        if object.object().object_type.is_percpu != is_percpu {
            refused(
                Errno::EINVAL,
                "obj_drop is for objects, percpu_obj_drop for per-CPU objects",
            );
        }
        drop(object.into_owned());
    }

    /// One more reference to an object that counts them; `None` if it is gone meanwhile.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: an object without `struct bpf_refcount`.
    #[doc(alias = "bpf_refcount_acquire")]
    #[track_caller]
    pub fn refcount_acquire(&self, object: &impl Reference) -> Option<Obj> {
        self.objects_allowed();
        let object = object.object();
        if !object.is_counted() {
            refused(Errno::EFAULT, "the object has no struct bpf_refcount");
        }
        object.acquire().map(Obj::new)
    }

    /// This CPU's part of a per-CPU object that was found by a kptr.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: another object.
    #[doc(alias = "bpf_this_cpu_ptr")]
    #[track_caller]
    pub fn this_cpu_ptr<'o>(&self, object: &'o ObjRef<'_>) -> Value<'o> {
        self.no_lock_held();
        percpu(object).value_of(self.cpu)
    }

    /// A CPU's part of a per-CPU object that was found by a kptr; `None` if there is no such CPU.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: another object.
    #[doc(alias = "bpf_per_cpu_ptr")]
    #[track_caller]
    pub fn per_cpu_ptr<'o>(&self, object: &'o ObjRef<'_>, cpu: u32) -> Option<Value<'o>> {
        self.no_lock_held();
        percpu(object).part(cpu)
    }

    #[track_caller]
    pub(super) fn objects_allowed(&self) {
        if let Err(refused) = verifier::objects_allowed(self.prog_type) {
            panic!("{refused}");
        }
    }
}

#[track_caller]
fn percpu<'o>(object: &'o ObjRef<'_>) -> &'o Allocated {
    if !object.object.object_type.is_percpu {
        refused(Errno::EACCES, "it is no per-CPU object");
    }
    &object.object
}

#[track_caller]
fn type_of(map: &Map, type_id: u32, is_percpu: bool) -> ObjectType {
    let Some(btf) = &map.btf else {
        refused(Errno::EINVAL, "objects are of a type of the program's BTF");
    };
    if btf.btf.object(type_id).is_none() {
        refused(Errno::EINVAL, "an object is a struct");
    }
    ObjectType {
        btf: Arc::clone(&btf.btf),
        type_id,
        is_percpu,
    }
}

/// Pointers in values.
impl Prog {
    /// Puts a reference, or nothing, into the kptr at that byte of a value, and takes out what was there.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no kptr there, or one that holds no references; an object of another type; a lock that is
    /// held. For kptrs to objects of the kernel, see [`Prog::kptr_xchg_acquired`].
    #[doc(alias = "bpf_kptr_xchg")]
    #[track_caller]
    pub fn kptr_xchg(&self, value: &Value<'_>, offset: usize, new: Option<Obj>) -> Option<Obj> {
        self.no_lock_held();
        let kptr = kptr(value, offset);
        let wanted = object_type(&kptr);
        if let Some(new) = &new {
            let given = &new.object().object_type;
            // The verifier of 6.18 lets this pass.
            let is_mistaken = ObjectType {
                is_percpu: true,
                ..given.clone()
            };
            assert!(
                *given == wanted || is_mistaken != wanted,
                "mapemu does not emulate that the kernel takes an object for a per-CPU one"
            );
            if *given != wanted {
                refused(Errno::EACCES, "the kptr is for objects of another type");
            }
        }
        let new = new.map(|new| Pointee::Allocated(new.into_owned()));
        match kptr.swap(new)? {
            Pointee::Allocated(old) => Some(Obj::new(old)),
            Pointee::Kernel(_) => unreachable!("a kptr holds objects of its type"),
        }
    }

    /// Loads the kptr at that byte of a value, without taking the reference out: the object may be released meanwhile, but
    /// its bytes stay until the program ends.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no kptr there. Kptrs that hold no references are not emulated. For kptrs to objects of the
    /// kernel, see [`Prog::kptr_load_object`].
    #[track_caller]
    pub fn kptr_load(&self, value: &Value<'_>, offset: usize) -> Option<ObjRef<'_>> {
        let kptr = kptr(value, offset);
        // Of what type it is does not matter, but the kernel's objects are not allocated.
        object_type(&kptr);
        kptr.load().map(ObjRef::new)
    }
}

/// The kptr at that byte of a value.
#[track_caller]
pub(super) fn kptr<'v>(value: &'v Value<'_>, offset: usize) -> Root<'v> {
    if !value.has_fields() {
        panic!("{NO_FIELDS}");
    }
    let fields = value.fields();
    assert!(
        fields.at(offset, FieldKind::KptrUntrusted).is_none(),
        "mapemu does not emulate kptr_untrusted, pointers without a reference, yet"
    );
    let kptr = value
        .root(offset, FieldKind::Kptr)
        .or_else(|| value.root(offset, FieldKind::KptrPercpu));
    kptr.unwrap_or_else(|| refused(Errno::EINVAL, "this is not where the value has a kptr"))
}

#[track_caller]
fn object_type(kptr: &Root<'_>) -> ObjectType {
    let object_type = kptr.object_type();
    object_type.unwrap_or_else(|| refused(Errno::EACCES, "the kptr is for objects of the kernel"))
}

impl fmt::Debug for Obj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reference to an {:?}", self.owned)
    }
}

impl fmt::Debug for ObjRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pointer to an {:?}", self.object)
    }
}
