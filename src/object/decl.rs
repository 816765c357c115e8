//! The declaration of one map.

use crate::abi::{Fd, MapFlags, MapType};

/// What a map is made with. libbpf: `struct bpf_map_def` and what was added to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BpfMapDef {
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Number of elements at most. An array of perf events with 0 gets one for each CPU.
    pub max_entries: u32,
    /// Flags.
    pub map_flags: MapFlags,
    /// What the type makes of it.
    pub map_extra: u64,
    /// NUMA node.
    pub numa_node: u32,
    /// The key's type in the object's BTF, or 0.
    pub btf_key_type_id: u32,
    /// The value's type in the object's BTF, or 0.
    pub btf_value_type_id: u32,
}

impl Default for BpfMapDef {
    fn default() -> Self {
        Self {
            map_type: MapType::UNSPEC,
            key_size: 0,
            value_size: 0,
            max_entries: 0,
            map_flags: MapFlags::empty(),
            map_extra: 0,
            numa_node: 0,
            btf_key_type_id: 0,
            btf_value_type_id: 0,
        }
    }
}

/// Where a declaration comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// `SEC("maps")`.
    Legacy,
    /// `SEC(".maps")`.
    Btf,
    /// A section of variables that can be changed.
    Data,
    /// A section of constants: its map is frozen.
    Rodata,
    /// A section of variables that begin as 0.
    Bss,
}

impl MapKind {
    /// A section of variables.
    pub const fn is_variables(self) -> bool {
        matches!(self, Self::Data | Self::Rodata | Self::Bss)
    }
}

/// One map that an object declares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapDecl {
    /// Name; the kernel gets its first 15 bytes. That of a section of variables is cut as libbpf cuts it.
    pub name: String,
    /// The section that declares it, or whose variables it holds.
    pub section: String,
    /// Where the declaration comes from.
    pub kind: MapKind,
    /// What it is made with.
    pub def: BpfMapDef,
    /// It is pinned under its name, and taken from there if it is there already.
    pub pin_by_name: bool,
    /// What the inner maps of a map of maps are like.
    pub inner: Option<BpfMapDef>,
    /// An inner map's fd, where none is declared.
    pub inner_map_fd: Option<Fd>,
    /// Places that are filled from the start, with the names of the maps (or programs) that they get. Those of an array of
    /// programs stay empty: programs are not loaded here.
    pub slots: Vec<(u32, String)>,
    /// What a section's variables begin as; filled up with 0.
    pub contents: Vec<u8>,
}

impl MapDecl {
    pub(super) fn new(name: &str, section: &str, kind: MapKind, def: BpfMapDef) -> Self {
        Self {
            name: name.to_owned(),
            section: section.to_owned(),
            kind,
            def,
            pin_by_name: false,
            inner: None,
            inner_map_fd: None,
            slots: Vec::new(),
            contents: Vec::new(),
        }
    }

    /// Has that name; or holds the variables of the section of that name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || (self.kind.is_variables() && self.section == name)
    }
}
