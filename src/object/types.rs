//! An object's BTF before it is loaded: read loosely, changed in place, written out.
//!
//! What a compiler writes is not yet what the kernel takes, so [`Btf`](crate::btf::Btf) cannot read it.

use crate::btf::raw::{self, Kind, Member, SecInfo, Type};

/// Types that refer to each other are followed so far.
const MAX_DEPTH: usize = 32;
/// Bytes of a pointer in BPF.
const POINTER_SIZE: u64 = 8;

/// The linkage of a variable or function.
pub(super) const STATIC: u32 = 0;
pub(super) const GLOBAL: u32 = 1;

/// The types and strings of a blob.
#[derive(Clone, Debug)]
pub(super) struct Types {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins; id 0 is `void` and lies nowhere.
    starts: Vec<usize>,
}

impl Types {
    /// Reads a blob; what types refer to may not be there.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn read(blob: &[u8]) -> Result<Self, &'static str> {
        let sections = raw::sections(blob).map_err(|_| "its header is broken")?;
        let types = blob[sections.types.0..sections.types.1].to_vec();
        let strings = blob[sections.strings.0..sections.strings.1].to_vec();
        let mut starts = vec![0];
        let mut at = 0;
        while at < types.len() {
            if types.len() - at < raw::TYPE_SIZE {
                return Err("its last type is not whole");
            }
            let t = type_at(&types, at);
            if t.kind() == Kind::VOID || t.kind().0 > Kind::ENUM64.0 {
                return Err("a type is of an unknown kind");
            }
            let size = raw::TYPE_SIZE + t.kind().extra_size(t.vlen());
            if types.len() - at < size {
                return Err("its last type is not whole");
            }
            starts.push(at);
            at += size;
        }
        Ok(Self {
            types,
            strings,
            starts,
        })
    }

    /// The blob, for `BPF_BTF_LOAD`.
    pub(super) fn blob(&self) -> Vec<u8> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (types, strings) = (len(&self.types), len(&self.strings));
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            blob.extend_from_slice(&u32::to_le_bytes(word));
        }
        blob.extend_from_slice(&self.types);
        blob.extend_from_slice(&self.strings);
        blob
    }

    /// The ids of all types but `void`.
    pub(super) fn ids(&self) -> std::ops::Range<u32> {
        1..u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// A type by its id; `void` too.
    pub(super) fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type::VOID);
        }
        let at = self.starts.get(id as usize)?;
        Some(type_at(&self.types, *at))
    }

    /// A name; empty where there is none.
    pub(super) fn name(&self, offset: u32) -> std::borrow::Cow<'_, str> {
        let text = self.strings.get(offset as usize..).unwrap_or_default();
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text)
    }

    /// The first type of that name, of whatever kind.
    pub(super) fn by_name(&self, name: &str) -> Option<(u32, Type)> {
        self.ids()
            .filter_map(|id| Some((id, self.get(id)?)))
            .find(|(_, t)| self.name(t.name_off) == name)
    }

    /// The first type of that name and kind.
    pub(super) fn by_name_and_kind(&self, name: &str, kind: Kind) -> Option<(u32, Type)> {
        self.ids()
            .filter_map(|id| Some((id, self.get(id)?)))
            .find(|(_, t)| t.kind() == kind && self.name(t.name_off) == name)
    }

    /// The type behind `typedef`s and qualifiers.
    pub(super) fn plain(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let t = self.get(id)?;
            if !t.kind().is_modifier() {
                return Some(t);
            }
            id = t.size_or_type;
        }
        None
    }

    /// Bytes of a type.
    ///
    /// libbpf: `btf__resolve_size`.
    pub(super) fn size(&self, mut id: u32) -> Option<u32> {
        let mut count = 1_u64;
        for _ in 0..MAX_DEPTH {
            let t = self.get(id)?;
            let kind = t.kind();
            if kind.has_size() || kind == Kind::PTR {
                let size = if kind == Kind::PTR {
                    POINTER_SIZE
                } else {
                    u64::from(t.size_or_type)
                };
                return u32::try_from(count.checked_mul(size)?).ok();
            } else if kind.is_modifier() || matches!(kind, Kind::VAR | Kind::DECL_TAG) {
                id = t.size_or_type;
            } else if kind == Kind::ARRAY {
                let (element, n_elems) = self.array(t);
                count = count.checked_mul(u64::from(n_elems))?;
                if count > u64::from(u32::MAX) {
                    return None;
                }
                id = element;
            } else {
                return None;
            }
        }
        None
    }

    /// Type and number of an array's elements.
    pub(super) fn array(&self, of: Type) -> (u32, u32) {
        (
            raw::word(&self.types, of.extra),
            raw::word(&self.types, of.extra + 8),
        )
    }

    /// The members of a struct.
    pub(super) fn members(&self, of: Type) -> impl Iterator<Item = Member> {
        (0..of.vlen()).map(move |index| {
            let at = of.extra + 12 * index;
            Member {
                name_off: raw::word(&self.types, at),
                type_id: raw::word(&self.types, at + 4),
                offset: raw::word(&self.types, at + 8),
            }
        })
    }

    /// The values of an enum, or of one of 64 bits.
    pub(super) fn values(&self, of: Type) -> Vec<u64> {
        let is_64 = of.kind() == Kind::ENUM64;
        let stride = if is_64 { 12 } else { 8 };
        (0..of.vlen())
            .map(|index| {
                let at = of.extra + stride * index + 4;
                let low = raw::word(&self.types, at);
                if is_64 {
                    u64::from(low) | u64::from(raw::word(&self.types, at + 4)) << 32
                } else {
                    // As C converts an `int`: with its sign.
                    i64::from(low.cast_signed()).cast_unsigned()
                }
            })
            .collect()
    }

    /// The variables of a section.
    pub(super) fn variables(&self, of: Type) -> Vec<SecInfo> {
        (0..of.vlen())
            .map(|index| {
                let at = of.extra + 12 * index;
                SecInfo {
                    type_id: raw::word(&self.types, at),
                    offset: raw::word(&self.types, at + 4),
                    size: raw::word(&self.types, at + 8),
                }
            })
            .collect()
    }

    /// The word after a variable's or integer's first ones.
    pub(super) fn first_word(&self, of: Type) -> u32 {
        raw::word(&self.types, of.extra)
    }

    // --- changes ----------------------------------------------------------------------------------------------------

    fn put(&mut self, at: usize, word: u32) {
        self.types[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    /// Sets the second word of a type: its size, or the type that it refers to.
    pub(super) fn set_size_or_type(&mut self, of: Type, word: u32) {
        self.put(of.extra - 4, word);
    }

    /// Sets the linkage of a variable.
    pub(super) fn set_variable_linkage(&mut self, of: Type, linkage: u32) {
        self.put(of.extra, linkage);
    }

    /// Sets the linkage of a function.
    pub(super) fn set_function_linkage(&mut self, of: Type, linkage: u32) {
        self.put(of.extra - 8, Kind::FUNC.0 << 24 | linkage);
    }

    /// Writes the variables of a section back, as many as there were.
    pub(super) fn set_variables(&mut self, of: Type, variables: &[SecInfo]) {
        for (index, info) in variables.iter().enumerate() {
            let at = of.extra + 12 * index;
            self.put(at, info.type_id);
            self.put(at + 4, info.offset);
            self.put(at + 8, info.size);
        }
    }

    /// Gives the parameters of a function's type that have no name this one.
    pub(super) fn name_parameters(&mut self, of: Type, name_off: u32) {
        for index in 0..of.vlen() {
            let at = of.extra + 8 * index;
            let has_type = raw::word(&self.types, at + 4) != 0;
            if has_type && raw::word(&self.types, at) == 0 {
                self.put(at, name_off);
            }
        }
    }

    /// Adds a global variable; its id.
    pub(super) fn add_variable(&mut self, name: &str, type_id: u32) -> u32 {
        let id = self.ids().end;
        let name_off = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        self.starts.push(self.types.len());
        for word in [name_off, Kind::VAR.0 << 24, type_id, GLOBAL] {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        id
    }
}

/// A type that is whole up to its first words.
fn type_at(types: &[u8], at: usize) -> Type {
    Type {
        name_off: raw::word(types, at),
        info: raw::word(types, at + 4),
        size_or_type: raw::word(types, at + 8),
        extra: at + raw::TYPE_SIZE,
    }
}
