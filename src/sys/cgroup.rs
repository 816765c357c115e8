//! The tree of cgroups, and the programs that are attached in it.
//!
//! Kernel: `kernel/bpf/cgroup.c` (v6.18).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kernel;
use super::files::Held;
use crate::abi::{AttachFlags, AttachType, Errno, Fd, Result};
use crate::map::Map;
use crate::map::cgroup_storage::Storage;
use crate::map::object::{Cgroup, Object, OtherKind, Prog, Socket};

/// The root's id.
const ROOT: u64 = 1;

/// All cgroups that are there, by id.
#[derive(Debug)]
pub(super) struct Cgroups {
    by_id: BTreeMap<u64, State>,
    next_id: u64,
}

/// One cgroup.
#[derive(Debug)]
struct State {
    cgroup: Arc<Cgroup>,
    places: BTreeMap<AttachType, Place>,
}

/// What is attached to one cgroup at one place.
#[derive(Debug)]
pub(super) struct Place {
    /// `OVERRIDE` or `MULTI` of the programs that are there; none if there are none.
    pub(super) flags: AttachFlags,
    /// In the order in which they run.
    pub(super) entries: Vec<Entry>,
    /// Counts what came and went, from 1 on.
    pub(super) revision: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            flags: AttachFlags::empty(),
            entries: Vec::new(),
            revision: 1,
        }
    }
}

/// One program at one place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) prog: Arc<Prog>,
    /// The link that holds it there, by its object's id; else it was attached directly.
    pub(super) link: Option<u64>,
    /// The elements that the program which came here first was given; a link's next program is given the same.
    pub(super) storages: Vec<(Arc<Map>, Storage)>,
}

impl Cgroups {
    /// Only the root.
    pub(super) fn new() -> Self {
        let root = Cgroup {
            id: ROOT,
            name: String::new(),
            parent: None,
        };
        let mut cgroups = Self {
            by_id: BTreeMap::new(),
            next_id: ROOT + 1,
        };
        cgroups.insert(root);
        cgroups
    }

    fn insert(&mut self, cgroup: Cgroup) -> Arc<Cgroup> {
        let cgroup = Arc::new(cgroup);
        let state = State {
            cgroup: Arc::clone(&cgroup),
            places: BTreeMap::new(),
        };
        self.by_id.insert(cgroup.id, state);
        cgroup
    }

    fn children(&self, id: u64) -> impl Iterator<Item = &Cgroup> {
        let of = move |cgroup: &&Cgroup| cgroup.parent.as_ref().is_some_and(|up| up.id == id);
        self.by_id.values().map(|state| &*state.cgroup).filter(of)
    }

    fn create(&mut self, name: &str, parent: Option<Arc<Cgroup>>) -> Result<Arc<Cgroup>> {
        let cgroup = self.declare(name, parent, self.next_id)?;
        self.next_id += 1;
        Ok(cgroup)
    }

    fn declare(&mut self, name: &str, parent: Option<Arc<Cgroup>>, id: u64) -> Result<Arc<Cgroup>> {
        let parent_id = parent.as_ref().map_or(ROOT, |parent| parent.id);
        let parent = self.by_id.get(&parent_id).ok_or(Errno::ENOENT)?;
        let parent = Arc::clone(&parent.cgroup);
        let taken = self.by_id.contains_key(&id);
        if taken || self.children(parent_id).any(|child| child.name == name) {
            return Err(Errno::EEXIST);
        }
        Ok(self.insert(Cgroup {
            id,
            name: name.to_owned(),
            parent: Some(parent),
        }))
    }

    /// Takes a cgroup out, with what is attached to it.
    fn remove(&mut self, id: u64) -> Result<Vec<Place>> {
        if !self.by_id.contains_key(&id) {
            return Err(Errno::ENOENT);
        }
        if id == ROOT || self.children(id).next().is_some() {
            return Err(Errno::EBUSY);
        }
        let state = self.by_id.remove(&id);
        Ok(state.map_or_else(Vec::new, |state| state.places.into_values().collect()))
    }

    /// The place of an attach type at a cgroup.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the cgroup was removed.
    pub(super) fn place(&mut self, id: u64, attach_type: AttachType) -> Result<&mut Place> {
        let state = self.by_id.get_mut(&id).ok_or(Errno::ENOENT)?;
        Ok(state.places.entry(attach_type).or_default())
    }

    /// A cgroup's place and those above it, the nearest first; none for a cgroup that was removed.
    pub(super) fn upwards(&self, id: u64, attach_type: AttachType) -> impl Iterator<Item = &Place> {
        let parent = |state: &&State| {
            let parent = state.cgroup.parent.as_ref()?;
            self.by_id.get(&parent.id)
        };
        std::iter::successors(self.by_id.get(&id), parent)
            .filter_map(move |state| state.places.get(&attach_type))
    }

    /// What an event in that cgroup runs, in order: its own programs first, then those of the cgroups above.
    ///
    /// Kernel: `kernel/bpf/cgroup.c:compute_effective_progs`.
    pub(super) fn effective(
        &self,
        id: u64,
        attach_type: AttachType,
    ) -> impl Iterator<Item = &Entry> {
        let mut none_yet = true;
        self.upwards(id, attach_type)
            .filter(move |place| {
                let runs = none_yet || place.is_multi();
                none_yet &= place.entries.is_empty();
                runs
            })
            .flat_map(|place| &place.entries)
    }

    /// The parent's id.
    pub(super) fn parent(&self, id: u64) -> Option<u64> {
        let parent = self.by_id.get(&id)?.cgroup.parent.as_ref()?;
        Some(parent.id)
    }

    /// Is it still there?
    pub(super) fn is_alive(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }
}

impl Kernel {
    /// Makes a cgroup below another, or below the root; its fd.
    ///
    /// # Errors
    ///
    /// `EBADF` if the parent is no cgroup, `ENOENT` if it was removed; `EEXIST`.
    pub fn cgroup_create(&self, name: &str, parent: Option<Fd>) -> Result<Fd> {
        let parent = parent.map(|fd| self.own().cgroup(fd)).transpose()?;
        let cgroup = self.inner.cgroups.lock().create(name, parent)?;
        self.own().open(Held::Object(Object::Cgroup(cgroup)))
    }

    /// As [`Kernel::cgroup_create`], with an id that a front end gives: the number of its directory's inode.
    ///
    /// # Errors
    ///
    /// Also `EEXIST` if there is a cgroup with that id.
    pub fn cgroup_declare(&self, name: &str, parent: Option<Fd>, id: u64) -> Result<Fd> {
        let parent = parent.map(|fd| self.own().cgroup(fd)).transpose()?;
        let cgroup = self.inner.cgroups.lock().declare(name, parent, id)?;
        self.own().open(Held::Object(Object::Cgroup(cgroup)))
    }

    /// rmdir(2) of a cgroup; the fd stays open. What is attached goes, and so do its elements in cgroup storages.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is no cgroup, `ENOENT` if it was removed before; `EBUSY` with children.
    pub fn cgroup_remove(&self, fd: Fd) -> Result<()> {
        let cgroup = self.own().cgroup(fd)?;
        let places = self.inner.cgroups.lock().remove(cgroup.id)?;
        // Programs, and maps that they hold, may go: no lock is held here.
        drop(places);
        self.release_cgroup(cgroup.id);
        Ok(())
    }

    /// The elements of a cgroup that was removed go, unless a socket of a process in it is open.
    pub(super) fn release_cgroup(&self, id: u64) {
        let has_sockets = self.inner.sockets.lock().values().any(|&of| of == id);
        if has_sockets || self.inner.cgroups.lock().is_alive(id) {
            return;
        }
        for map in self.live_maps() {
            map.ops.release_cgroup(id);
        }
    }

    /// A new socket, made by a process in that cgroup: until it is closed, the cgroup's elements stay.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is no cgroup, `ENOENT` if it was removed.
    pub fn open_in(&self, cgroup: Fd, socket: Socket) -> Result<Fd> {
        let cgroup = self.own().live_cgroup(cgroup)?;
        let object = self.inner.other(OtherKind::Socket(socket));
        self.inner.sockets.lock().insert(object.id, cgroup.id);
        self.own().open(Held::Object(Object::Other(object)))
    }

    /// What held something in maps, a socket say, ends; so does what a socket held in its cgroup.
    pub(super) fn owner_ended(&self, object_id: u64) {
        self.release_owner(object_id);
        let cgroup = self.inner.sockets.lock().remove(&object_id);
        if let Some(cgroup) = cgroup {
            self.release_cgroup(cgroup);
        }
    }
}
