//! Reads BTF: the sizes of types, and where a lock, a timer or a kptr sits in a value.
//!
//! A blob is judged once, when it is loaded: header and sections (`raw`), each type by itself (`meta`), what types refer to
//! (`resolve`), and the special fields of its structs (`special`). Later questions rely on that.
//!
//! Kernel: `kernel/bpf/btf.c` (v6.18).

mod fields;
mod kernel_types;
mod meta;
pub(crate) mod raw;
mod resolve;
mod special;
mod writer;

pub use fields::{Field, FieldKind, Fields};
pub use writer::Writer;

use std::collections::HashMap;

use crate::abi::{Errno, Result};
use crate::env::Release;
use raw::{IntData, Kind, Member, SecInfo, Type};
use special::Mask;

/// A BTF blob that was loaded.
pub struct Btf {
    /// Id, unique in one kernel.
    pub id: u32,
    release: &'static Release,
    data: Vec<u8>,
    strings: (usize, usize),
    /// Where each type begins in `data`; id 0 is `void` and lies nowhere.
    types: Vec<usize>,
    /// What each type resolved to; 0 where that says nothing.
    resolved: Vec<Resolved>,
    /// The first struct of each name.
    structs: HashMap<Vec<u8>, u32>,
    /// The tags on a declaration: by type and member.
    tags: HashMap<(u32, u32), Vec<u32>>,
    /// Structs that hold a special field by themselves, with the fields found in them.
    metas: HashMap<u32, special::Record>,
}

/// What resolving a type gave.
#[derive(Clone, Copy, Default, Debug)]
struct Resolved {
    type_id: u32,
    size: u32,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BTF {} of {} types", self.id, self.types.len())
    }
}

impl Btf {
    /// Bytes of the largest blob; `BPF_BTF_LOAD` answers `E2BIG` to a larger one before it reads it.
    pub const MAX_SIZE: usize = raw::MAX_SIZE;

    /// Parses and checks a blob as `BPF_BTF_LOAD` does on that release.
    ///
    /// # Errors
    ///
    /// `E2BIG` if it is too large; `EINVAL`, `ENOTSUPP`, `E2BIG`, `EEXIST` or `ELOOP` for a blob that is broken; then for
    /// structs with special fields: `E2BIG` for two locks in one struct, `EFAULT` for a field that is not where it can be,
    /// `ENOENT` for a kptr to a type of the kernel that nothing can release, `EINVAL` for the rest.
    ///
    /// Kernel: `kernel/bpf/btf.c:btf_parse`.
    pub fn parse(bytes: &[u8], id: u32, release: &'static Release) -> Result<Self> {
        if bytes.len() > Self::MAX_SIZE {
            return Err(Errno::E2BIG);
        }
        let sections = raw::sections(bytes)?;
        let mut btf = Self {
            id,
            release,
            data: bytes.to_vec(),
            strings: sections.strings,
            types: vec![0],
            resolved: Vec::new(),
            structs: HashMap::new(),
            tags: HashMap::new(),
            metas: HashMap::new(),
        };
        meta::check_all(&mut btf, sections.types)?;
        btf.resolved = resolve::check_all(&btf)?;
        resolve::check_type_tags(&btf)?;
        btf.index();
        if release.btf_load_judges_structs {
            btf.metas = special::check_structs(&btf)?;
        }
        Ok(btf)
    }

    /// Fills the tables that special fields are looked up with.
    fn index(&mut self) {
        for id in 1..self.n_types() {
            let t = self.type_of(id);
            if t.kind() == Kind::STRUCT {
                let name = self.name(t.name_off).to_vec();
                self.structs.entry(name).or_insert(id);
            } else if t.kind() == Kind::DECL_TAG {
                let member = raw::word(&self.data, t.extra);
                self.tags
                    .entry((t.size_or_type, member))
                    .or_default()
                    .push(id);
            }
        }
    }

    /// The blob.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Bytes of a type; qualifiers and `typedef`s are followed. `None` if there is no such type or it has no size.
    ///
    /// Kernel: `kernel/bpf/btf.c:btf_type_id_size`.
    pub fn type_size(&self, id: u32) -> Option<u32> {
        self.sized(id).map(|(_, size)| size)
    }

    /// An integer of that many bits, all of its bytes; `typedef`s are followed.
    pub fn is_int(&self, id: u32, bits: u32) -> bool {
        self.sized(id).is_some_and(|(id, _)| {
            let t = self.type_of(id);
            t.kind() == Kind::INT && {
                let data = self.int_data(t);
                data.bits() == bits && data.offset() == 0
            }
        })
    }

    /// A struct; `typedef`s are followed.
    pub fn is_struct(&self, id: u32) -> bool {
        self.kind_of_sized(id) == Some(Kind::STRUCT)
    }

    /// A section of variables.
    pub fn is_datasec(&self, id: u32) -> bool {
        self.kind_of_sized(id) == Some(Kind::DATASEC)
    }

    /// A struct like `struct bpf_cgroup_storage_key`: 64 bits at 0, 32 bits at 8, nothing else.
    ///
    /// Kernel: `kernel/bpf/local_storage.c:cgroup_storage_check_btf`.
    pub fn is_cgroup_storage_key(&self, id: u32) -> bool {
        let Some((id, _)) = self.sized(id) else {
            return false;
        };
        let t = self.type_of(id);
        let is_plain = |index: usize, offset: u32, bits: u32| {
            let member = self.member(t, index);
            member.bit_offset(t) == offset
                && member.bitfield_size(t) == 0
                && self.is_int(member.type_id, bits)
        };
        t.kind() == Kind::STRUCT && t.vlen() == 2 && is_plain(0, 0, 64) && is_plain(1, 64, 32)
    }

    /// The special fields of a value of that type; none if there are none, and none if their layout is broken.
    ///
    /// Kernel: `kernel/bpf/syscall.c:map_check_btf`, `kernel/bpf/btf.c:btf_parse_fields`.
    pub fn fields(&self, value_type_id: u32) -> Fields {
        self.value_record(value_type_id)
            .map_or_else(Fields::default, |record| record.to_fields(self))
    }

    /// Size and special fields of a struct that programs allocate objects of; `None` if that is no struct.
    ///
    /// Only structs that hold a special field by themselves have any: those in structs within do not count.
    ///
    /// Kernel: `kernel/bpf/btf.c:btf_find_struct_meta`.
    pub fn object(&self, type_id: u32) -> Option<(u32, Fields)> {
        let t = self.type_by_id(type_id)?;
        let record = self.metas.get(&type_id);
        (t.kind() == Kind::STRUCT).then(|| {
            let fields = record.map_or_else(Fields::default, |record| record.to_fields(self));
            (t.size_or_type, fields)
        })
    }

    /// A struct of numbers, of arrays of them, and of such structs.
    ///
    /// Kernel: `kernel/bpf/verifier.c:__btf_type_is_scalar_struct`.
    pub fn is_scalar_struct(&self, type_id: u32) -> bool {
        self.is_scalar_struct_at(type_id, 0)
    }

    fn is_scalar_struct_at(&self, type_id: u32, depth: u32) -> bool {
        let t = self.type_of(type_id);
        let is_scalar = |id: u32| {
            let id = self.sized(id).map_or(id, |(id, _)| id);
            match self.type_of(id).kind() {
                Kind::INT | Kind::ENUM | Kind::ENUM64 => true,
                Kind::STRUCT => depth < 3 && self.is_scalar_struct_at(id, depth + 1),
                _ => false,
            }
        };
        t.kind() == Kind::STRUCT
            && (0..t.vlen()).all(|index| {
                let id = self.member(t, index).type_id;
                let id = self.sized(id).map_or(id, |(id, _)| id);
                let member = self.type_of(id);
                if member.kind() == Kind::ARRAY {
                    is_scalar(self.array(member).0)
                } else {
                    is_scalar(id)
                }
            })
    }

    /// The first struct of that name.
    pub fn struct_named(&self, name: &str) -> Option<u32> {
        self.structs.get(name.as_bytes()).copied()
    }

    /// Whether a map may own what its special fields own.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a pointer to user memory whose type is the kernel's or empty, `E2BIG` if it is larger than a page;
    /// `EFAULT` for a list or tree of structs that cannot be in one; `ELOOP` for a list of lists of itself.
    ///
    /// Kernel: `kernel/bpf/btf.c:btf_check_and_fixup_fields`.
    pub fn check_ownership(&self, value_type_id: u32) -> Result<()> {
        self.value_record(value_type_id).map_or(Ok(()), |record| {
            special::check_ownership(self, &record, &self.metas)
        })
    }

    fn value_record(&self, value_type_id: u32) -> Option<special::Record> {
        let (id, size) = self.sized(value_type_id)?;
        special::parse_fields(self, id, Mask::OF_MAPS, size)
            .ok()
            .flatten()
    }

    /// A function.
    pub fn is_function(&self, id: u32) -> bool {
        let found = self.type_by_id(id);
        found.is_some_and(|found| found.kind() == Kind::FUNC)
    }

    /// There is a string at that offset.
    pub fn has_name(&self, offset: u32) -> bool {
        let (begin, end) = self.strings;
        (offset as usize) < end - begin
    }

    // --- what the parts of this folder ask --------------------------------------------------------------------------

    fn n_types(&self) -> u32 {
        u32::try_from(self.types.len()).expect("at most MAX_TYPE")
    }

    fn type_by_id(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type::VOID);
        }
        self.types.get(id as usize).map(|&at| Type {
            name_off: raw::word(&self.data, at),
            info: raw::word(&self.data, at + 4),
            size_or_type: raw::word(&self.data, at + 8),
            extra: at + raw::TYPE_SIZE,
        })
    }

    /// A type that is known to be there.
    fn type_of(&self, id: u32) -> Type {
        self.type_by_id(id)
            .expect("ids in a checked blob are of types in it")
    }

    /// The bytes of a name, without its NUL.
    fn name(&self, offset: u32) -> &[u8] {
        let text = &self.data[self.strings.0 + offset as usize..self.strings.1];
        text.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn name_of(&self, id: u32) -> &[u8] {
        self.name(self.type_of(id).name_off)
    }

    fn member(&self, of: Type, index: usize) -> Member {
        let at = of.extra + 12 * index;
        Member {
            name_off: raw::word(&self.data, at),
            type_id: raw::word(&self.data, at + 4),
            offset: raw::word(&self.data, at + 8),
        }
    }

    fn sec_info(&self, of: Type, index: usize) -> SecInfo {
        let at = of.extra + 12 * index;
        SecInfo {
            type_id: raw::word(&self.data, at),
            offset: raw::word(&self.data, at + 4),
            size: raw::word(&self.data, at + 8),
        }
    }

    /// Name and type of a parameter.
    fn param(&self, of: Type, index: usize) -> (u32, u32) {
        let at = of.extra + 8 * index;
        (raw::word(&self.data, at), raw::word(&self.data, at + 4))
    }

    fn int_data(&self, of: Type) -> IntData {
        IntData(raw::word(&self.data, of.extra))
    }

    /// Type and number of an array's elements.
    fn array(&self, of: Type) -> (u32, u32) {
        (
            raw::word(&self.data, of.extra),
            raw::word(&self.data, of.extra + 8),
        )
    }

    fn array_index_type(&self, of: Type) -> u32 {
        raw::word(&self.data, of.extra + 4)
    }

    /// The type that says the size of this one, and the size.
    fn sized(&self, id: u32) -> Option<(u32, u32)> {
        resolve::sized(self, &self.resolved, id)
    }

    fn kind_of_sized(&self, id: u32) -> Option<Kind> {
        self.sized(id).map(|(id, _)| self.type_of(id).kind())
    }
}
