//! Maps from an object file: what a compiled BPF program declares, made on any kernel as a loader would make it.
//!
//! Both styles of declaration are read, `SEC("maps")` with `struct bpf_map_def` and `SEC(".maps")` with BTF, and the
//! sections of variables (`.data`, `.rodata`, `.bss` and those named after them), which become arrays of one element.
//! Names, flags, BTF and order are libbpf's: old-style declarations first, then those of `.maps` by their place in it, then
//! the sections of variables as the file has them. Programs are not looked at.
//!
//! Refused by name: `.kconfig`, variables in an arena (`.addr_space.1`) and `.struct_ops`.
//!
//! ```no_run
//! use mapemu::abi::MapType;
//! use mapemu::{Kernel, calls, object::Object};
//!
//! let bytes = std::fs::read("counter.bpf.o")?;
//! let mut object = Object::parse(&bytes, "counter")?;
//! object.map_mut("flows").expect("declared").def.max_entries = 16;
//! let kernel = Kernel::new();
//! let loaded = object.create(&kernel, None)?;
//! let flows = loaded.map("flows").expect("declared");
//! assert_eq!(calls::bpf_map_get_info_by_fd(&kernel, flows)?.map_type, MapType::HASH);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod btf_maps;
mod decl;
mod elf;
mod error;
mod fixup;
mod legacy;
mod load;
mod types;
mod variables;

use elf::Elf;
use types::Types;

pub use decl::{BpfMapDef, MapDecl, MapKind};
pub use error::ObjectError;
pub use load::{Loaded, LoadedMap};

/// Sections whose maps cannot be made, with what they are.
const REFUSED: &[(&str, &str)] = &[
    (".addr_space.1", "variables in an arena are not emulated"),
    (".struct_ops", "maps of kernel operations are not emulated"),
    (
        ".struct_ops.link",
        "maps of kernel operations are not emulated",
    ),
    ("?.struct_ops", "maps of kernel operations are not emulated"),
    (
        "?.struct_ops.link",
        "maps of kernel operations are not emulated",
    ),
];

/// The maps that an object file declares.
#[derive(Clone, Debug)]
pub struct Object {
    name: String,
    maps: Vec<MapDecl>,
    btf: Option<Vec<u8>>,
}

impl Object {
    /// Reads the maps of a compiled object. `name` is what libbpf calls the object, its file's name up to the first dot:
    /// the names of the sections' maps begin with it.
    ///
    /// # Errors
    ///
    /// For bytes that are no little-endian BPF object; for a section that is not emulated; for BTF that is broken, if
    /// maps are declared in it; for a declaration that libbpf would refuse.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, ObjectError> {
        let elf = Elf::parse(bytes)?;
        for (section, reason) in REFUSED {
            if elf.section(section).is_some_and(|found| found.size > 0) {
                return Err(ObjectError::section(section, reason));
            }
        }
        let types = read_types(&elf)?;
        let mut maps = legacy::maps(&elf, types.as_ref())?;
        if let (Some(types), Some(section)) = (&types, elf.section(btf_maps::SECTION)) {
            maps.extend(btf_maps::maps(&elf, section, types)?);
        }
        maps.extend(variables::maps(&elf, types.as_ref(), name)?);
        Ok(Self {
            name: name.to_owned(),
            maps,
            btf: types.map(|types| types.blob()),
        })
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The declarations, in the order in which the maps are made.
    pub fn maps(&self) -> &[MapDecl] {
        &self.maps
    }

    /// The declarations, to be changed before the maps are made.
    pub fn maps_mut(&mut self) -> &mut [MapDecl] {
        &mut self.maps
    }

    /// The declaration of that name, or of that section of variables (`.rodata`).
    pub fn map(&self, name: &str) -> Option<&MapDecl> {
        self.maps.iter().find(|decl| decl.is_called(name))
    }

    /// The declaration of that name, to be changed before the maps are made.
    pub fn map_mut(&mut self, name: &str) -> Option<&mut MapDecl> {
        self.maps.iter_mut().find(|decl| decl.is_called(name))
    }

    /// The object's BTF as it is loaded: with the sizes of sections and the places of variables.
    pub fn btf(&self) -> Option<&[u8]> {
        self.btf.as_deref()
    }
}

/// The object's BTF, ready to be loaded. Without maps that need it, broken BTF counts as none.
fn read_types(elf: &Elf<'_>) -> Result<Option<Types>, ObjectError> {
    const SECTION: &str = ".BTF";
    let is_needed = elf.section(btf_maps::SECTION).is_some();
    let Some(section) = elf.section(SECTION) else {
        if is_needed {
            let reason = "its maps are declared in BTF, and there is none";
            return Err(ObjectError::section(btf_maps::SECTION, reason));
        }
        return Ok(None);
    };
    match Types::read(section.data) {
        Ok(mut types) => {
            fixup::fix(&mut types, elf)?;
            Ok(Some(types))
        }
        Err(reason) if is_needed => Err(ObjectError::section(SECTION, reason)),
        Err(_) => Ok(None),
    }
}
