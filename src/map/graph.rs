//! What programs put into values, and into objects: kptrs, lists and trees.
//!
//! It lies beside the values, by the address of the field, as a pointer in the field does in the kernel: it stays with the
//! place, whatever element has it. It goes when the element goes, when an element is written in place (but not with
//! `BPF_F_LOCK` in a hash), and with the map.
//!
//! Locks: the table's is the last that is taken; nothing is dropped and no code of a program is run under it.
//!
//! Kernel: `kernel/bpf/helpers.c:bpf_kptr_xchg`, `__bpf_list_add`, `__bpf_list_del`, `__bpf_rbtree_add`,
//! `bpf_list_head_free`, `bpf_rb_root_free`, `kernel/bpf/syscall.c:bpf_obj_free_fields` (v6.18).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::allocated::{Allocated, Membership, ObjectType, Owned};
use super::lock::SpinGuard;
use super::object::Object;
use crate::abi::{Errno, Result};
use crate::btf::{Btf, Field, FieldKind, Fields};
pub use crate::store::Side;
use crate::store::{RbTree, WORD, Words};

/// The kptrs, lists and trees of one map, or of one object.
pub struct Graph {
    fields: Vec<Field>,
    /// Where the lock is in a value that its lists and trees are under.
    lock: Option<u32>,
    btf: Arc<Btf>,
    /// What is not empty, by the address of the field.
    roots: Mutex<HashMap<usize, Content>>,
}

/// What one field holds.
enum Content {
    Kptr(Pointee),
    List(VecDeque<Owned>),
    Tree(Tree),
}

/// What a kptr points to. The reference is the kptr's.
#[derive(Debug)]
pub enum Pointee {
    /// An object that a program allocated.
    Allocated(Owned),
    /// An object of the kernel: a process, a cgroup.
    Kernel(Object),
}

/// A tree lets go of its nodes when it goes. (A list does not: see [`Root::push`].)
struct Tree {
    nodes: RbTree<Owned>,
    node: u32,
}

impl Tree {
    const fn new(node: u32) -> Self {
        Self {
            nodes: RbTree::new(),
            node,
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for owned in self.nodes.drain() {
            owned.object().leave(self.node);
        }
    }
}

const fn is_of_graph(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Kptr | FieldKind::KptrPercpu | FieldKind::ListHead | FieldKind::RbRoot
    )
}

impl Graph {
    /// A table for values with these fields, if there is a kptr, a list or a tree among them.
    pub(super) fn of(fields: &Fields, btf: Option<&Arc<Btf>>) -> Option<Self> {
        let own = fields.0.iter().filter(|field| is_of_graph(field.kind));
        let own: Vec<_> = own.copied().collect();
        let btf = btf.filter(|_| !own.is_empty())?;
        Some(Self {
            fields: own,
            lock: fields.spin_lock(),
            btf: Arc::clone(btf),
            roots: Mutex::default(),
        })
    }

    /// The field of that kind that is at that byte of the value that begins at that word.
    pub(super) fn root(
        &self,
        (words, at): (&Words, usize),
        offset: usize,
        kind: FieldKind,
    ) -> Option<Root<'_>> {
        let field = self
            .fields
            .iter()
            .find(|field| field.kind == kind && field.offset as usize == offset)?;
        Some(Root {
            graph: self,
            field,
            address: address(words, at + offset / WORD),
        })
    }

    /// The fields of a value hold nothing any more; gives what they held, to be dropped.
    #[cold]
    pub(super) fn take(&self, words: &Words, value_at: usize) -> Vec<impl Send + use<>> {
        let held = self.fields.iter().filter_map(|field| {
            let is_root = matches!(field.kind, FieldKind::ListHead | FieldKind::RbRoot);
            let lock = self.lock.filter(|_| is_root);
            let _guard = lock.map(|lock| SpinGuard::lock(words, value_at * WORD + lock as usize));
            let at = address(words, value_at + field.offset as usize / WORD);
            self.roots.lock().remove(&at)
        });
        held.collect()
    }
}

/// Addresses of fields do not change while anything is in them.
fn address(words: &Words, at: usize) -> usize {
    std::ptr::from_ref(words.word(at)) as usize
}

/// Which end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Where `front` and `pop_front` look.
    Front,
    /// Where `back` and `pop_back` look.
    Back,
}

/// One kptr, list or tree.
#[derive(Clone, Copy)]
pub struct Root<'g> {
    graph: &'g Graph,
    field: &'g Field,
    address: usize,
}

impl Root<'_> {
    /// The type of the objects that it holds; `None` if they are the kernel's.
    pub fn object_type(&self) -> Option<ObjectType> {
        (self.field.btf_id != 0).then(|| ObjectType {
            btf: Arc::clone(&self.graph.btf),
            type_id: self.field.target,
            is_percpu: self.field.kind == FieldKind::KptrPercpu,
        })
    }

    /// The struct of the kernel that it points to.
    pub fn kernel_struct(&self) -> Option<&'static str> {
        self.field.kernel_struct()
    }

    /// Does something with what it holds.
    fn with<T>(&self, look: impl FnOnce(Option<&mut Content>) -> T) -> T {
        look(self.graph.roots.lock().get_mut(&self.address))
    }

    /// Of a kptr: puts a reference in, takes the old one out.
    pub fn swap(&self, new: Option<Pointee>) -> Option<Pointee> {
        let mut roots = self.graph.roots.lock();
        let old = match new {
            Some(new) => roots.insert(self.address, Content::Kptr(new)),
            None => roots.remove(&self.address),
        };
        match old? {
            Content::Kptr(old) => Some(old),
            Content::List(_) | Content::Tree(_) => unreachable!("kptrs only are swapped"),
        }
    }

    /// Of a kptr: the object, without a reference.
    pub fn load(&self) -> Option<Arc<Allocated>> {
        self.with(|content| match content {
            Some(Content::Kptr(Pointee::Allocated(owned))) => Some(Arc::clone(owned.object())),
            _ => None,
        })
    }

    /// Of a kptr: the kernel's object, without a reference.
    pub fn load_kernel(&self) -> Option<Object> {
        self.with(|content| match content {
            Some(Content::Kptr(Pointee::Kernel(object))) => Some(object.clone()),
            _ => None,
        })
    }

    /// Puts an object into a list.
    ///
    /// # Errors
    ///
    /// `EINVAL` if its node is in a list already, or was in one that went with its element: such a node is never free again.
    /// The reference is gone then, too.
    pub fn push(&self, object: Owned, end: End) -> Result<()> {
        if !object.object().join(self.field.node, self.address) {
            return Err(Errno::EINVAL);
        }
        let mut roots = self.graph.roots.lock();
        let content = roots
            .entry(self.address)
            .or_insert_with(|| Content::List(VecDeque::new()));
        let Content::List(list) = content else {
            unreachable!("lists only are pushed to");
        };
        match end {
            End::Front => list.push_front(object),
            End::Back => list.push_back(object),
        }
        Ok(())
    }

    /// Takes the object at an end of a list out.
    pub fn pop(&self, end: End) -> Option<Owned> {
        let object = self.with(|content| match (content, end) {
            (Some(Content::List(list)), End::Front) => list.pop_front(),
            (Some(Content::List(list)), End::Back) => list.pop_back(),
            _ => None,
        })?;
        object.object().leave(self.field.node);
        Some(object)
    }

    /// The object at an end of a list.
    pub fn end(&self, end: End) -> Option<Arc<Allocated>> {
        self.with(|content| {
            let object = match (content, end) {
                (Some(Content::List(list)), End::Front) => list.front(),
                (Some(Content::List(list)), End::Back) => list.back(),
                _ => None,
            };
            object.map(|owned| Arc::clone(owned.object()))
        })
    }

    /// Puts an object into a tree, behind those that it is not less than.
    ///
    /// # Errors
    ///
    /// `EINVAL` if its node is in a tree already. The reference is gone then, too.
    pub fn add(
        &self,
        object: Owned,
        mut less: impl FnMut(&Arc<Allocated>, &Arc<Allocated>) -> bool,
    ) -> Result<()> {
        let added = Arc::clone(object.object());
        if !added.join(self.field.node, self.address) {
            return Err(Errno::EINVAL);
        }
        let mut taken = TakenOut::new(*self);
        let nodes = &mut taken.tree.nodes;
        let number = nodes.add(object, |a, b| less(a.object(), b.object()));
        added.number(self.field.node, number);
        Ok(())
    }

    /// Takes an object out of a tree, if it is in this one.
    pub fn remove(&self, object: &Allocated) -> Option<Owned> {
        let number = self.number(object)?;
        let removed = self.with(|content| match content {
            Some(Content::Tree(tree)) => Some(tree.nodes.remove(number)),
            _ => None,
        })?;
        removed.object().leave(self.field.node);
        Some(removed)
    }

    /// The first object of a tree.
    pub fn first(&self) -> Option<Arc<Allocated>> {
        self.node(RbTree::first)
    }

    /// The object at the root of a tree.
    pub fn top(&self) -> Option<Arc<Allocated>> {
        self.node(RbTree::root)
    }

    /// The object at that side below one of a tree; none too if that one is not in this tree.
    pub fn below(&self, object: &Allocated, side: Side) -> Option<Arc<Allocated>> {
        let number = self.number(object)?;
        self.node(|nodes| nodes.child(number, side))
    }

    fn node(&self, find: impl FnOnce(&RbTree<Owned>) -> Option<usize>) -> Option<Arc<Allocated>> {
        self.with(|content| match content {
            Some(Content::Tree(tree)) => {
                let nodes = &tree.nodes;
                find(nodes).map(|number| Arc::clone(nodes.get(number).object()))
            }
            _ => None,
        })
    }

    fn number(&self, object: &Allocated) -> Option<usize> {
        let Membership { root, number } = object.membership(self.field.node)?;
        (root == self.address).then_some(number)
    }
}

/// A tree that is out of the table, as its order is the program's; it goes back even if that panics.
struct TakenOut<'g> {
    root: Root<'g>,
    tree: Tree,
}

impl<'g> TakenOut<'g> {
    fn new(root: Root<'g>) -> Self {
        let content = root.graph.roots.lock().remove(&root.address);
        let tree = match content {
            Some(Content::Tree(tree)) => tree,
            _ => Tree::new(root.field.node),
        };
        Self { root, tree }
    }
}

impl Drop for TakenOut<'_> {
    fn drop(&mut self) {
        let Root { graph, address, .. } = self.root;
        let empty = Tree::new(self.tree.node);
        let tree = std::mem::replace(&mut self.tree, empty);
        graph.roots.lock().insert(address, Content::Tree(tree));
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.roots.lock().len();
        write!(f, "{n} kptrs, lists and trees")
    }
}

impl fmt::Debug for Root<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.field)
    }
}
