//! Makes the maps of an object.
//!
//! libbpf: `bpf_object__create_maps`.

use std::fmt;

use super::decl::{BpfMapDef, MapDecl, MapKind};
use super::variables::allowed;
use super::{Object, ObjectError};
use crate::abi::{Bpf, Errno, Fd, MapFlags, MapType, OBJ_NAME_LEN, Result as BpfResult};
use crate::calls::{self, CreateOpts};

/// Where maps are pinned, if nothing else is said.
const PIN_ROOT: &str = "/sys/fs/bpf";

/// The maps of an object on one kernel. Their fds are closed when this is dropped, but for those that were taken.
pub struct Loaded<'b> {
    bpf: &'b dyn Bpf,
    maps: Vec<LoadedMap>,
    btf: Option<Fd>,
    btf_error: Option<Errno>,
}

/// One map that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadedMap {
    /// What it was made from.
    pub decl: MapDecl,
    /// Its fd; none once it was taken.
    pub fd: Option<Fd>,
    /// It was found where it is pinned, not made.
    pub was_pinned: bool,
}

impl Object {
    /// Makes all maps: loads the BTF, makes each map in order, gives it its contents, and pins it under `pin_root`
    /// (`/sys/fs/bpf` if none) where that was asked for. The directory has to be there. A map that is pinned already is used
    /// as it is.
    ///
    /// As with libbpf, BTF that the kernel refuses is done without, and so are key and value types that it refuses.
    ///
    /// # Errors
    ///
    /// What the kernel answers, with the call and the map; for a pinned map that is not like the declared one; for a place
    /// of a map of maps that is filled with a map made later. What was made until then is closed.
    pub fn create<'b>(
        &self,
        bpf: &'b dyn Bpf,
        pin_root: Option<&str>,
    ) -> Result<Loaded<'b>, ObjectError> {
        let mut loaded = Loaded {
            bpf,
            maps: Vec::new(),
            btf: None,
            btf_error: None,
        };
        if let Some(btf) = self.btf() {
            match calls::bpf_btf_load(bpf, btf) {
                Ok(fd) => loaded.btf = Some(fd),
                Err(errno) => loaded.btf_error = Some(errno),
            }
        }
        for decl in self.maps() {
            loaded.create(decl, pin_root.unwrap_or(PIN_ROOT))?;
        }
        Ok(loaded)
    }
}

impl<'b> Loaded<'b> {
    /// The fd of the map of that name, or of that section of variables (`.rodata`). This still closes it.
    pub fn map(&self, name: &str) -> Option<Fd> {
        self.find(name)?.fd
    }

    /// Hands over the fd of the map of that name: it is not closed any more.
    pub fn take(&mut self, name: &str) -> Option<Fd> {
        self.maps
            .iter_mut()
            .find(|map| map.decl.is_called(name))?
            .fd
            .take()
    }

    /// The maps, in the order in which they were made.
    pub fn maps(&self) -> &[LoadedMap] {
        &self.maps
    }

    /// The maps, in the order in which they were made.
    pub fn iter(&self) -> std::slice::Iter<'_, LoadedMap> {
        self.maps.iter()
    }

    /// The fd of the object's BTF; none if it has none, or if the kernel refused it.
    pub fn btf(&self) -> Option<Fd> {
        self.btf
    }

    /// Why the kernel refused the object's BTF.
    pub fn btf_error(&self) -> Option<Errno> {
        self.btf_error
    }

    /// The kernel that the maps are on.
    pub fn bpf(&self) -> &'b dyn Bpf {
        self.bpf
    }

    fn find(&self, name: &str) -> Option<&LoadedMap> {
        self.maps.iter().find(|map| map.decl.is_called(name))
    }

    /// Makes one map, or finds it pinned.
    fn create(&mut self, decl: &MapDecl, pin_root: &str) -> Result<(), ObjectError> {
        let mut decl = decl.clone();
        set_max_entries(self.bpf, &mut decl.def);
        let path = decl
            .pin_by_name
            .then(|| format!("{pin_root}/{}", decl.name));
        if let Some(fd) = self.pinned(&decl, path.as_deref())? {
            self.push(decl, fd, true);
            return Ok(());
        }
        let fd = self.make(&decl)?;
        let at = self.push(decl, fd, false);
        self.fill(at, fd)?;
        let Some(path) = path else {
            return Ok(());
        };
        match calls::bpf_obj_pin(self.bpf, fd, &path) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                // Another was quicker: its map is the one to use.
                let decl = self.maps[at].decl.clone();
                let theirs = self
                    .pinned(&decl, Some(&path))?
                    .ok_or_else(|| call(&decl, "bpf_obj_get")(Errno::ENOENT))?;
                self.maps.truncate(at);
                close(self.bpf, fd);
                self.push(decl, theirs, true);
                Ok(())
            }
            Err(errno) => Err(call(&self.maps[at].decl, "bpf_obj_pin")(errno)),
        }
    }

    fn push(&mut self, decl: MapDecl, fd: Fd, was_pinned: bool) -> usize {
        self.maps.push(LoadedMap {
            decl,
            fd: Some(fd),
            was_pinned,
        });
        self.maps.len() - 1
    }

    /// The map that is pinned there, if it is like the declared one.
    fn pinned(&self, decl: &MapDecl, path: Option<&str>) -> Result<Option<Fd>, ObjectError> {
        let Some(path) = path else {
            return Ok(None);
        };
        let fd = match calls::bpf_obj_get(self.bpf, path) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(call(decl, "bpf_obj_get")(errno)),
        };
        let is_like = calls::bpf_map_get_info_by_fd(self.bpf, fd).map(|info| {
            let mut map_flags = info.map_flags;
            if matches!(decl.def.map_type, MapType::DEVMAP | MapType::DEVMAP_HASH) {
                // The kernel sets it by itself.
                map_flags.remove(MapFlags::RDONLY_PROG);
            }
            info.map_type == decl.def.map_type
                && info.key_size == decl.def.key_size
                && info.value_size == decl.def.value_size
                && info.max_entries == decl.def.max_entries
                && map_flags == decl.def.map_flags
                && info.map_extra == decl.def.map_extra
        });
        if is_like == Ok(true) {
            return Ok(Some(fd));
        }
        close(self.bpf, fd);
        let reason = format!("the map that is pinned at {path} is not like it");
        Err(ObjectError::symbol(&decl.section, &decl.name, reason))
    }

    /// Makes a map, after the one that its inner maps are to be like.
    fn make(&self, decl: &MapDecl) -> Result<Fd, ObjectError> {
        let mut inner = None;
        if decl.def.map_type.is_map_in_map()
            && let Some(mut def) = decl.inner
        {
            set_max_entries(self.bpf, &mut def);
            let name = format!("{}.inner", decl.name);
            let made = self.make_one(&name, &def, 0);
            inner = Some(made.map_err(call(decl, "bpf_map_create of its inner map"))?);
        }
        let inner_map_fd = inner.or(decl.inner_map_fd).unwrap_or_default();
        let made = if decl.kind.is_variables() {
            let name = allowed(decl.name.bytes().take(OBJ_NAME_LEN - 1));
            self.make_one(&name, &decl.def, inner_map_fd)
        } else {
            self.make_one(&decl.name, &decl.def, inner_map_fd)
        };
        if let Some(fd) = inner {
            close(self.bpf, fd);
        }
        made.map_err(call(decl, "bpf_map_create"))
    }

    fn make_one(&self, name: &str, def: &BpfMapDef, inner_map_fd: Fd) -> BpfResult<Fd> {
        let mut opts = CreateOpts {
            map_flags: def.map_flags.bits(),
            map_extra: def.map_extra,
            numa_node: def.numa_node,
            inner_map_fd,
            ..CreateOpts::default()
        };
        let make = |opts: &CreateOpts| {
            calls::bpf_map_create(
                self.bpf,
                def.map_type,
                cut(name),
                def.key_size,
                def.value_size,
                def.max_entries,
                opts,
            )
        };
        let has_types = def.btf_key_type_id != 0 || def.btf_value_type_id != 0;
        if let Some(btf) = self.btf
            && has_types
            && takes_btf(def.map_type)
        {
            opts.btf_fd = btf;
            opts.btf_key_type_id = def.btf_key_type_id;
            opts.btf_value_type_id = def.btf_value_type_id;
            if let Ok(fd) = make(&opts) {
                return Ok(fd);
            }
            opts.btf_fd = 0;
            opts.btf_key_type_id = 0;
            opts.btf_value_type_id = 0;
        }
        make(&opts)
    }

    /// Gives a map what it holds from the start.
    fn fill(&self, at: usize, fd: Fd) -> Result<(), ObjectError> {
        let decl = &self.maps[at].decl;
        if decl.kind.is_variables() && !decl.contents.is_empty() {
            let mut value = decl.contents.clone();
            value.resize(decl.def.value_size as usize, 0);
            calls::bpf_map_update_elem(self.bpf, fd, &[0; 4], &value, 0)
                .map_err(call(decl, "bpf_map_update_elem"))?;
        }
        if decl.kind == MapKind::Rodata {
            calls::bpf_map_freeze(self.bpf, fd).map_err(call(decl, "bpf_map_freeze"))?;
        }
        if !decl.def.map_type.is_map_in_map() {
            return Ok(());
        }
        for (slot, name) in &decl.slots {
            let inner = self.maps[..at]
                .iter()
                .find(|map| map.decl.name == *name)
                .and_then(|map| map.fd)
                .ok_or_else(|| {
                    let reason =
                        format!("place {slot} is filled with `{name}`, which is made later");
                    ObjectError::symbol(&decl.section, &decl.name, reason)
                })?;
            let (key, value) = (slot.to_ne_bytes(), inner.to_ne_bytes());
            calls::bpf_map_update_elem(self.bpf, fd, &key, &value, 0)
                .map_err(call(decl, "bpf_map_update_elem"))?;
        }
        Ok(())
    }
}

/// An array of perf events has one for each CPU, if nothing else is said.
fn set_max_entries(bpf: &dyn Bpf, def: &mut BpfMapDef) {
    if def.map_type == MapType::PERF_EVENT_ARRAY && def.max_entries == 0 {
        def.max_entries = bpf.nr_cpus();
    }
}

/// The types that libbpf tells nothing of keys and values to.
fn takes_btf(map_type: MapType) -> bool {
    !matches!(
        map_type,
        MapType::PERF_EVENT_ARRAY
            | MapType::CGROUP_ARRAY
            | MapType::STACK_TRACE
            | MapType::ARRAY_OF_MAPS
            | MapType::HASH_OF_MAPS
            | MapType::DEVMAP
            | MapType::DEVMAP_HASH
            | MapType::CPUMAP
            | MapType::XSKMAP
            | MapType::SOCKMAP
            | MapType::SOCKHASH
            | MapType::QUEUE
            | MapType::STACK
            | MapType::ARENA
    )
}

/// As much of a name as the kernel takes.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(OBJ_NAME_LEN - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Puts the kernel's answer into an error.
fn call(decl: &MapDecl, call: &'static str) -> impl Fn(Errno) -> ObjectError {
    let (section, symbol) = (decl.section.clone(), decl.name.clone());
    move |errno| ObjectError::Call {
        section: section.clone(),
        symbol: symbol.clone(),
        call,
        errno,
    }
}

/// Closes an fd of ours; it is open unless somebody else closed it.
fn close(bpf: &dyn Bpf, fd: Fd) {
    let _ = bpf.close(fd);
}

impl<'a> IntoIterator for &'a Loaded<'_> {
    type Item = &'a LoadedMap;
    type IntoIter = std::slice::Iter<'a, LoadedMap>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Loaded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("maps", &self.maps)
            .field("btf", &self.btf)
            .field("btf_error", &self.btf_error)
            .finish_non_exhaustive()
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        for fd in self.maps.iter().filter_map(|map| map.fd).chain(self.btf) {
            close(self.bpf, fd);
        }
    }
}
