//! The kind of programs that a map belongs to, where it holds programs: they run in the place of the one that uses it.
//!
//! The first program that is put in, or that uses the map, binds it: from then on others have to be of its kind, even if the
//! map is emptied.
//!
//! Kernel: `kernel/bpf/core.c:bpf_prog_map_compatible` (v6.18).

use parking_lot::Mutex;

use super::object::Prog;
use crate::abi::{AttachType, Errno, MapType, ProgType, Result};

/// What all programs of a map have in common, once it is bound.
#[derive(Debug, Default)]
pub(super) struct Owner(Mutex<Option<Kind>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    prog_type: ProgType,
    expected_attach_type: AttachType,
    xdp_has_frags: bool,
    /// Ids of the maps of cgroup storage that they use, one of each kind.
    storages: [Option<u32>; 2],
}

impl Kind {
    fn of(prog: &Prog) -> Self {
        let storage = |kind| {
            let of_kind = prog.maps.iter().find(|map| map.def.map_type == kind);
            of_kind.map(|map| map.id)
        };
        Self {
            prog_type: prog.prog_type,
            expected_attach_type: prog.expected_attach_type,
            xdp_has_frags: prog.xdp_has_frags,
            storages: [
                storage(MapType::CGROUP_STORAGE),
                storage(MapType::PERCPU_CGROUP_STORAGE),
            ],
        }
    }

    /// Whether a program of the kind `other` may be with those of this one: a jump leaves the cgroup storage as it is, so it
    /// has to use the same, or none.
    fn fits(&self, other: &Self) -> bool {
        let storages_fit = self
            .storages
            .iter()
            .zip(other.storages)
            .all(|(own, other)| other.is_none() || other == *own);
        self.prog_type == other.prog_type
            && self.xdp_has_frags == other.xdp_has_frags
            && storages_fit
    }
}

impl Owner {
    /// Binds the map to the kind of a program, if it is not bound yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is bound to another kind.
    pub(super) fn bind(&self, prog: &Prog) -> Result<()> {
        let kind = Kind::of(prog);
        if self.0.lock().get_or_insert(kind).fits(&kind) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// As [`Owner::bind`], for programs that also have to be attached to the same.
    ///
    /// # Errors
    ///
    /// As [`Owner::bind`].
    pub(super) fn bind_attached(&self, prog: &Prog) -> Result<()> {
        self.bind(prog)?;
        let attach_type = self.0.lock().map(|kind| kind.expected_attach_type);
        if attach_type == Some(prog.expected_attach_type) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The type of the programs, once it is bound.
    pub(super) fn prog_type(&self) -> Option<ProgType> {
        self.0.lock().map(|kind| kind.prog_type)
    }
}
