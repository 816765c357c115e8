//! What the bytes of BTF say, without a judgement: kinds, and the words of types and their parts.
//!
//! Source: `include/uapi/linux/btf.h`.

use crate::abi::{Errno, Result};

/// Bytes of the largest blob that the kernel loads.
pub(crate) const MAX_SIZE: usize = 16 << 20;
/// Bytes of the header that this kernel knows.
pub(crate) const HEADER_SIZE: usize = 24;
/// Largest offset of a name, and so one less than the largest string section.
pub(crate) const MAX_NAME_OFFSET: usize = 0x00ff_ffff;
/// Largest type id.
pub(crate) const MAX_TYPE: u32 = 0x000f_ffff;
/// Bytes of a type's first words.
pub(crate) const TYPE_SIZE: usize = 12;

/// The kind of a type, as its number; not every number is a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind(pub u32);

impl Kind {
    pub(crate) const VOID: Self = Self(0);
    pub(crate) const INT: Self = Self(1);
    pub(crate) const PTR: Self = Self(2);
    pub(crate) const ARRAY: Self = Self(3);
    pub(crate) const STRUCT: Self = Self(4);
    pub(crate) const UNION: Self = Self(5);
    pub(crate) const ENUM: Self = Self(6);
    pub(crate) const FWD: Self = Self(7);
    pub(crate) const TYPEDEF: Self = Self(8);
    pub(crate) const VOLATILE: Self = Self(9);
    pub(crate) const CONST: Self = Self(10);
    pub(crate) const RESTRICT: Self = Self(11);
    pub(crate) const FUNC: Self = Self(12);
    pub(crate) const FUNC_PROTO: Self = Self(13);
    pub(crate) const VAR: Self = Self(14);
    pub(crate) const DATASEC: Self = Self(15);
    pub(crate) const FLOAT: Self = Self(16);
    pub(crate) const DECL_TAG: Self = Self(17);
    pub(crate) const TYPE_TAG: Self = Self(18);
    pub(crate) const ENUM64: Self = Self(19);

    /// `typedef`, `const` and the like: the type is another one, with something said about it.
    pub(crate) const fn is_modifier(self) -> bool {
        matches!(
            self,
            Self::TYPEDEF | Self::VOLATILE | Self::CONST | Self::RESTRICT | Self::TYPE_TAG
        )
    }

    pub(crate) const fn is_struct_or_union(self) -> bool {
        matches!(self, Self::STRUCT | Self::UNION)
    }

    /// Its second word is its size.
    pub(crate) const fn has_size(self) -> bool {
        matches!(
            self,
            Self::INT
                | Self::STRUCT
                | Self::UNION
                | Self::ENUM
                | Self::ENUM64
                | Self::DATASEC
                | Self::FLOAT
        )
    }

    /// Has no size, whatever it refers to.
    pub(crate) const fn is_sizeless(self) -> bool {
        matches!(
            self,
            Self::VOID | Self::FWD | Self::FUNC | Self::FUNC_PROTO | Self::DECL_TAG
        )
    }

    /// Refers to other types, but none may refer to it (except sections to variables).
    pub(crate) const fn is_source_only(self) -> bool {
        matches!(self, Self::VAR | Self::DECL_TAG | Self::DATASEC)
    }

    /// Refers to other types that have to be looked at first.
    pub(crate) const fn needs_resolve(self) -> bool {
        self.is_modifier()
            || self.is_struct_or_union()
            || matches!(
                self,
                Self::PTR | Self::ARRAY | Self::VAR | Self::FUNC | Self::DECL_TAG | Self::DATASEC
            )
    }

    /// Bytes after the first words, if `vlen` parts are there.
    pub(crate) const fn extra_size(self, vlen: usize) -> usize {
        match self {
            Self::INT | Self::VAR | Self::DECL_TAG => 4,
            Self::ARRAY => 12,
            Self::STRUCT | Self::UNION | Self::DATASEC | Self::ENUM64 => 12 * vlen,
            Self::ENUM | Self::FUNC_PROTO => 8 * vlen,
            _ => 0,
        }
    }
}

/// One type: its first words, and where its further words begin in the blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    pub name_off: u32,
    pub info: u32,
    /// Size in bytes, or the id of the type that it refers to.
    pub size_or_type: u32,
    /// Where the words after the first ones begin.
    pub extra: usize,
}

impl Type {
    /// Type id 0.
    pub(crate) const VOID: Self = Self {
        name_off: 0,
        info: 0,
        size_or_type: 0,
        extra: 0,
    };

    /// The bits of `info` that mean something.
    pub(crate) const INFO_MASK: u32 = 0x9f00_ffff;

    pub(crate) const fn kind(self) -> Kind {
        Kind((self.info >> 24) & 0x1f)
    }

    /// Number of members, values, parameters or variables.
    pub(crate) const fn vlen(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Bit fields have their size with their offset; of enums: signed.
    pub(crate) const fn kflag(self) -> bool {
        self.info >> 31 != 0
    }
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub name_off: u32,
    pub type_id: u32,
    /// As it is in the blob: with the size of a bit field in it, if the struct says so.
    pub offset: u32,
}

impl Member {
    /// Where it begins in its struct `of`, in bits.
    pub(crate) const fn bit_offset(self, of: Type) -> u32 {
        if of.kflag() {
            self.offset & 0x00ff_ffff
        } else {
            self.offset
        }
    }

    /// The bits of a bit field, where the struct keeps them here; 0 if it is none.
    pub(crate) const fn bitfield_size(self, of: Type) -> u32 {
        if of.kflag() { self.offset >> 24 } else { 0 }
    }
}

/// A variable of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecInfo {
    pub type_id: u32,
    pub offset: u32,
    pub size: u32,
}

/// The word after an integer's first ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntData(pub u32);

impl IntData {
    pub(crate) const fn bits(self) -> u32 {
        self.0 & 0xff
    }

    pub(crate) const fn offset(self) -> u32 {
        (self.0 >> 16) & 0xff
    }

    /// Signed, char, bool: one bit each.
    pub(crate) const fn encoding(self) -> u32 {
        (self.0 >> 24) & 0x0f
    }

    /// 1, 2, 4, 8 or 16 bytes, from the first bit on.
    pub(crate) const fn is_regular(self) -> bool {
        self.offset() == 0 && matches!(self.bits(), 8 | 16 | 32 | 64 | 128)
    }
}

/// The word at a byte of the blob.
///
/// # Panics
///
/// If it is not there: the sections were checked.
pub(crate) fn word(data: &[u8], at: usize) -> u32 {
    let bytes = data[at..at + 4].try_into().expect("4 bytes");
    u32::from_le_bytes(bytes)
}

/// Where the sections of a blob lie in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sections {
    pub types: (usize, usize),
    pub strings: (usize, usize),
}

/// Judges header and sections.
///
/// # Errors
///
/// `EINVAL`; `E2BIG` if a longer header has bytes in it that this kernel does not know; `ENOTSUPP` for another version or
/// any flag.
///
/// Kernel: `kernel/bpf/btf.c:btf_parse_hdr`, `btf_check_sec_info`, `btf_parse_str_sec`, `btf_parse_type_sec`.
pub(crate) fn sections(data: &[u8]) -> Result<Sections> {
    if data.len() < 8 {
        return Err(Errno::EINVAL);
    }
    let header_len = word(data, 4) as usize;
    let header = data.get(..header_len).ok_or(Errno::EINVAL)?;
    if header.iter().skip(HEADER_SIZE).any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    // A shorter header is one whose last fields are 0, its own length too.
    let mut known = [0; HEADER_SIZE];
    let copied = header_len.min(HEADER_SIZE);
    known[..copied].copy_from_slice(&header[..copied]);
    let [lo, hi, version, flags, ..] = known;
    if u16::from_le_bytes([lo, hi]) != 0xeb9f {
        return Err(Errno::EINVAL);
    }
    if version != 1 || flags != 0 {
        return Err(Errno::ENOTSUPP);
    }
    let start = word(&known, 4) as usize;
    let body = data.len() - start;
    let types = (word(&known, 8) as usize, word(&known, 12) as usize);
    let strings = (word(&known, 16) as usize, word(&known, 20) as usize);
    let (first, second) = if types.0 <= strings.0 {
        (types, strings)
    } else {
        (strings, types)
    };
    // The two sections fill the rest of the blob, without gap and overlap.
    if first.0 != 0 || first.1 != second.0 || second.0.checked_add(second.1) != Some(body) {
        return Err(Errno::EINVAL);
    }
    let text = &data[start + strings.0..start + strings.0 + strings.1];
    if strings.0 + strings.1 != body
        || text.is_empty()
        || text.len() - 1 > MAX_NAME_OFFSET
        || text.first() != Some(&0)
        || text.last() != Some(&0)
    {
        return Err(Errno::EINVAL);
    }
    if !types.0.is_multiple_of(4) || types.1 == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Sections {
        types: (start + types.0, start + types.0 + types.1),
        strings: (start + strings.0, start + strings.0 + strings.1),
    })
}
