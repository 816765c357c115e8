//! A red-black tree whose order is the user's: equal things may be in it more than once.
//!
//! Its shape is the kernel's after the same calls, for those who walk it from the root. A node keeps its number while it is
//! in. No kernel file is followed here: these are the textbook's rotations.
//!
//! Invariants: a red node has no red child; each path from a node down to a leaf has the same number of black nodes.

/// Which child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// What is less.
    Left,
    /// The rest.
    Right,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// No node.
const NONE: usize = usize::MAX;

#[derive(Debug)]
struct Node<T> {
    value: Option<T>,
    parent: usize,
    children: [usize; 2],
    is_red: bool,
}

/// See the module.
#[derive(Debug)]
pub struct RbTree<T> {
    nodes: Vec<Node<T>>,
    free: Vec<usize>,
    root: usize,
}

impl<T> RbTree<T> {
    /// An empty tree.
    pub const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
        }
    }

    /// The root's number.
    pub const fn root(&self) -> Option<usize> {
        some(self.root)
    }

    /// The number of a node's child.
    pub fn child(&self, at: usize, side: Side) -> Option<usize> {
        some(self.nodes[at].children[side as usize])
    }

    /// The number of the least.
    pub fn first(&self) -> Option<usize> {
        let mut at = self.root()?;
        while let Some(left) = self.child(at, Side::Left) {
            at = left;
        }
        Some(at)
    }

    /// What a node holds.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn get(&self, at: usize) -> &T {
        let value = self.nodes[at].value.as_ref();
        value.expect("numbers are those of nodes in the tree")
    }

    /// Puts a value in, behind those that it is not less than; its number.
    pub fn add(&mut self, value: T, mut less: impl FnMut(&T, &T) -> bool) -> usize {
        let (mut parent, mut side) = (NONE, Side::Left);
        let mut next = self.root;
        while next != NONE {
            parent = next;
            side = if less(&value, self.get(next)) {
                Side::Left
            } else {
                Side::Right
            };
            next = self.nodes[next].children[side as usize];
        }
        let node = Node {
            value: Some(value),
            parent,
            children: [NONE; 2],
            is_red: true,
        };
        let at = self.free.pop().unwrap_or(self.nodes.len());
        if at == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[at] = node;
        }
        self.link(parent, side, at);
        self.after_add(at);
        at
    }

    /// Takes a node out; what it held.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn remove(&mut self, at: usize) -> T {
        let [left, right] = self.nodes[at].children;
        let (parent, side, child, was_red) = if left != NONE && right != NONE {
            self.replace_by_next(at)
        } else {
            let child = if left == NONE { right } else { left };
            let (parent, side) = self.place(at);
            self.link(parent, side, child);
            (parent, side, child, self.nodes[at].is_red)
        };
        if !was_red {
            if self.is_red(child) {
                self.nodes[child].is_red = false;
            } else {
                self.after_remove(parent, side);
            }
        }
        self.free.push(at);
        let value = self.nodes[at].value.take();
        value.expect("numbers are those of nodes in the tree")
    }

    /// Takes everything out, in no order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.root = NONE;
        self.free.clear();
        let nodes = std::mem::take(&mut self.nodes);
        nodes.into_iter().filter_map(|node| node.value)
    }

    /// Puts the least node that is not less in the place of `at`, which has two children. Where that one was (parent and
    /// side), what took its place there, and its colour.
    fn replace_by_next(&mut self, at: usize) -> (usize, Side, usize, bool) {
        let [left, right] = self.nodes[at].children;
        let mut next = right;
        while let Some(before) = self.child(next, Side::Left) {
            next = before;
        }
        let child = self.nodes[next].children[Side::Right as usize];
        let was_red = self.nodes[next].is_red;
        let mut hole = (self.nodes[next].parent, Side::Left);
        if next == right {
            hole = (next, Side::Right);
        } else {
            self.link(hole.0, Side::Left, child);
            self.link(next, Side::Right, right);
        }
        self.link(next, Side::Left, left);
        let (parent, side) = self.place(at);
        self.link(parent, side, next);
        self.nodes[next].is_red = self.nodes[at].is_red;
        (hole.0, hole.1, child, was_red)
    }

    /// No red node has a red child again, after a red one came in.
    fn after_add(&mut self, mut at: usize) {
        loop {
            let (parent, side) = self.place(at);
            if parent == NONE {
                self.nodes[at].is_red = false;
                return;
            }
            if !self.nodes[parent].is_red {
                return;
            }
            // The root is black, so a red parent has a parent.
            let (above, parent_side) = self.place(parent);
            let uncle = self.nodes[above].children[parent_side.other() as usize];
            if self.is_red(uncle) {
                self.nodes[uncle].is_red = false;
                self.nodes[parent].is_red = false;
                self.nodes[above].is_red = true;
                at = above;
                continue;
            }
            if side != parent_side {
                self.rotate(parent, parent_side);
            }
            let top = self.rotate(above, parent_side.other());
            self.nodes[top].is_red = false;
            self.nodes[above].is_red = true;
            return;
        }
    }

    /// Paths through that side of `parent` lack a black node: they get one, or all others lose one.
    fn after_remove(&mut self, mut parent: usize, mut side: Side) {
        while parent != NONE {
            let mut sibling = self.nodes[parent].children[side.other() as usize];
            if self.nodes[sibling].is_red {
                self.rotate(parent, side);
                self.nodes[sibling].is_red = false;
                self.nodes[parent].is_red = true;
                sibling = self.nodes[parent].children[side.other() as usize];
            }
            let near = self.nodes[sibling].children[side as usize];
            let far = self.nodes[sibling].children[side.other() as usize];
            if self.is_red(far) || self.is_red(near) {
                if !self.is_red(far) {
                    self.rotate(sibling, side.other());
                    self.nodes[near].is_red = false;
                    self.nodes[sibling].is_red = true;
                }
                let top = self.rotate(parent, side);
                self.nodes[top].is_red = self.nodes[parent].is_red;
                self.nodes[parent].is_red = false;
                let outer = self.nodes[top].children[side.other() as usize];
                self.nodes[outer].is_red = false;
                return;
            }
            self.nodes[sibling].is_red = true;
            if self.nodes[parent].is_red {
                self.nodes[parent].is_red = false;
                return;
            }
            (parent, side) = self.place(parent);
        }
    }

    /// Turns `at` down to that side, its child of the other side up; that child.
    fn rotate(&mut self, at: usize, side: Side) -> usize {
        let up = self.nodes[at].children[side.other() as usize];
        let inner = self.nodes[up].children[side as usize];
        let (parent, own_side) = self.place(at);
        self.link(parent, own_side, up);
        self.link(at, side.other(), inner);
        self.link(up, side, at);
        up
    }

    /// Parent and side of a node.
    fn place(&self, at: usize) -> (usize, Side) {
        let parent = self.nodes[at].parent;
        let is_right = parent != NONE && self.nodes[parent].children[1] == at;
        (parent, if is_right { Side::Right } else { Side::Left })
    }

    fn link(&mut self, parent: usize, side: Side, child: usize) {
        if parent == NONE {
            self.root = child;
        } else {
            self.nodes[parent].children[side as usize] = child;
        }
        if child != NONE {
            self.nodes[child].parent = parent;
        }
    }

    fn is_red(&self, at: usize) -> bool {
        at != NONE && self.nodes[at].is_red
    }
}

impl<T> Default for RbTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

const fn some(at: usize) -> Option<usize> {
    if at == NONE { None } else { Some(at) }
}
