//! Lists and trees of objects, in values and in other objects.
//!
//! The verifier wants the lock of the value that the list or tree is in, so what can be done with them is done with the
//! guard of that lock. What is found there without being taken out is known until the lock is released.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_list_push_front_impl`, `bpf_rbtree_add_impl`, and those that follow them (v6.18).

use std::cell::Cell;
use std::sync::Arc;

use super::allocated::{Obj, ObjRef, Reference, refused};
use super::{SpinLockGuard, verifier};
use crate::abi::{Errno, Result};
use crate::btf::FieldKind;
use crate::map::allocated::Allocated;
use crate::map::graph::{End, Root, Side};

/// Lists: each has a `struct bpf_list_head` at that byte of the value.
impl SpinLockGuard<'_> {
    /// Puts an object in front.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the object is in a list by that node, or was when an element went with its list; the reference is gone.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there, an object of another type.
    #[doc(alias = "bpf_list_push_front")]
    #[track_caller]
    pub fn list_push_front(&self, offset: usize, object: Obj) -> Result<()> {
        self.push(offset, object, End::Front)
    }

    /// Puts an object behind all others.
    ///
    /// # Errors
    ///
    /// As [`SpinLockGuard::list_push_front`].
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there, an object of another type.
    #[doc(alias = "bpf_list_push_back")]
    #[track_caller]
    pub fn list_push_back(&self, offset: usize, object: Obj) -> Result<()> {
        self.push(offset, object, End::Back)
    }

    /// Takes the first object out.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there.
    #[doc(alias = "bpf_list_pop_front")]
    #[track_caller]
    pub fn list_pop_front(&self, offset: usize) -> Option<Obj> {
        self.list(offset).pop(End::Front).map(Obj::new)
    }

    /// Takes the last object out.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there.
    #[doc(alias = "bpf_list_pop_back")]
    #[track_caller]
    pub fn list_pop_back(&self, offset: usize) -> Option<Obj> {
        self.list(offset).pop(End::Back).map(Obj::new)
    }

    /// The first object.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there.
    #[doc(alias = "bpf_list_front")]
    #[track_caller]
    pub fn list_front(&self, offset: usize) -> Option<ObjRef<'_>> {
        self.list(offset).end(End::Front).map(ObjRef::new)
    }

    /// The last object.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no list there.
    #[doc(alias = "bpf_list_back")]
    #[track_caller]
    pub fn list_back(&self, offset: usize) -> Option<ObjRef<'_>> {
        self.list(offset).end(End::Back).map(ObjRef::new)
    }

    #[track_caller]
    fn push(&self, offset: usize, object: Obj, end: End) -> Result<()> {
        let list = self.list(offset);
        fits(&list, &object);
        list.push(object.into_owned(), end)
    }

    #[track_caller]
    fn list(&self, offset: usize) -> Root<'_> {
        self.root(offset, FieldKind::ListHead)
    }
}

/// Trees: each has a `struct bpf_rb_root` at that byte of the value.
impl SpinLockGuard<'_> {
    /// Puts an object in, behind those that it is not less than.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the object is in a tree by that node; the reference is gone.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there, an object of another type; `less` that uses lists or trees.
    #[doc(alias = "bpf_rbtree_add")]
    #[track_caller]
    pub fn rbtree_add(
        &self,
        offset: usize,
        object: Obj,
        mut less: impl FnMut(&ObjRef<'_>, &ObjRef<'_>) -> bool,
    ) -> Result<()> {
        let tree = self.tree(offset);
        fits(&tree, &object);
        let _calls_back = CallsBack::new(&self.calls_back);
        let find = |object: &Arc<Allocated>| ObjRef::new(Arc::clone(object));
        tree.add(object.into_owned(), |a, b| less(&find(a), &find(b)))
    }

    /// Takes an object out; `None` if it is not in this tree.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there, an object of another type.
    #[doc(alias = "bpf_rbtree_remove")]
    #[track_caller]
    pub fn rbtree_remove(&self, offset: usize, object: &impl Reference) -> Option<Obj> {
        let tree = self.tree(offset);
        fits(&tree, object);
        tree.remove(object.object()).map(Obj::new)
    }

    /// The least object.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there.
    #[doc(alias = "bpf_rbtree_first")]
    #[track_caller]
    pub fn rbtree_first(&self, offset: usize) -> Option<ObjRef<'_>> {
        self.tree(offset).first().map(ObjRef::new)
    }

    /// The object at the root.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there.
    #[doc(alias = "bpf_rbtree_root")]
    #[track_caller]
    pub fn rbtree_root(&self, offset: usize) -> Option<ObjRef<'_>> {
        self.tree(offset).top().map(ObjRef::new)
    }

    /// The object at the left below another; `None` too if that one is not in this tree.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there, an object of another type.
    #[doc(alias = "bpf_rbtree_left")]
    #[track_caller]
    pub fn rbtree_left(&self, offset: usize, object: &impl Reference) -> Option<ObjRef<'_>> {
        self.below(offset, object, Side::Left)
    }

    /// The object at the right below another; `None` too if that one is not in this tree.
    ///
    /// # Panics
    ///
    /// What the verifier refuses: no tree there, an object of another type.
    #[doc(alias = "bpf_rbtree_right")]
    #[track_caller]
    pub fn rbtree_right(&self, offset: usize, object: &impl Reference) -> Option<ObjRef<'_>> {
        self.below(offset, object, Side::Right)
    }

    #[track_caller]
    fn below(&self, offset: usize, object: &impl Reference, side: Side) -> Option<ObjRef<'_>> {
        let tree = self.tree(offset);
        fits(&tree, object);
        tree.below(object.object(), side).map(ObjRef::new)
    }

    #[track_caller]
    fn tree(&self, offset: usize) -> Root<'_> {
        self.root(offset, FieldKind::RbRoot)
    }
}

impl SpinLockGuard<'_> {
    /// The object of an owning reference, as it is known until the lock is released: after the reference went to a list or
    /// tree, too.
    pub fn non_owning(&self, object: &Obj) -> ObjRef<'_> {
        ObjRef::new(Arc::clone(object.object()))
    }

    /// The list or tree at that byte of the value.
    #[track_caller]
    fn root(&self, offset: usize, kind: FieldKind) -> Root<'_> {
        self.prog.objects_allowed();
        if self.calls_back.get() {
            panic!("{}", verifier::LOCK_IS_HELD);
        }
        let root = self.value.root(offset, kind);
        root.unwrap_or_else(|| {
            refused(
                Errno::EINVAL,
                "this is not where the value that is locked has a list or tree",
            )
        })
    }
}

#[track_caller]
fn fits(root: &Root<'_>, object: &impl Reference) {
    if root.object_type().as_ref() != Some(&object.object().object_type) {
        refused(
            Errno::EINVAL,
            "the list or tree is of objects of another type",
        );
    }
}

/// The program's order of a tree is asked for, until the end of this.
struct CallsBack<'c>(&'c Cell<bool>);

impl<'c> CallsBack<'c> {
    fn new(calls_back: &'c Cell<bool>) -> Self {
        calls_back.set(true);
        Self(calls_back)
    }
}

impl Drop for CallsBack<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
