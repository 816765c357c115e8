//! The variants of `union bpf_attr`, decoded from bytes at named offsets.
//!
//! Addresses are those of the caller; nothing is read through them here.
//!
//! Source: `include/uapi/linux/bpf.h`, `union bpf_attr`.

use super::info::array_at;
use super::{
    AttachFlags, AttachType, Fd, MapFlags, MapType, OBJ_NAME_LEN, ProgFlags, ProgType, UpdateFlags,
};

/// The bytes of one attr, as long as the kernel's own; what the caller did not give is 0.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a>(pub &'a [u8]);

impl Attr<'_> {
    /// The `u32` at that offset.
    #[inline]
    pub fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes(array_at(self.0, at))
    }

    /// The `u64` at that offset.
    #[inline]
    pub fn u64(self, at: usize) -> u64 {
        u64::from_ne_bytes(array_at(self.0, at))
    }

    /// All bytes from that offset on are 0.
    pub fn zero_from(self, at: usize) -> bool {
        let rest = self.0.get(at..).unwrap_or_default();
        // All of them are looked at: shorter than stopping at the first that is not.
        rest.iter().fold(0, |all, byte| all | byte) == 0
    }
}

macro_rules! attr {
    ($(#[$doc:meta])* $type:ident, ends at $end:literal: $($(#[$field_doc:meta])* $field:ident: $kind:ty = $read:expr;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $type {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl $type {
            /// The first byte after its last field.
            pub const END: usize = $end;

            /// Reads the fields.
            #[inline]
            pub fn decode(attr: Attr<'_>) -> Self {
                Self { $($field: ($read)(attr),)* }
            }
        }
    };
}

attr! {
    /// The arguments of `BPF_MAP_CREATE`.
    CreateAttr, ends at 92:
    /// Type.
    map_type: MapType = |a: Attr<'_>| MapType(a.u32(0));
    /// Bytes of a key.
    key_size: u32 = |a: Attr<'_>| a.u32(4);
    /// Bytes of a value.
    value_size: u32 = |a: Attr<'_>| a.u32(8);
    /// Number of elements at most.
    max_entries: u32 = |a: Attr<'_>| a.u32(12);
    /// Flags.
    map_flags: MapFlags = |a: Attr<'_>| MapFlags::from_bits_retain(a.u32(16));
    /// The template of a map of maps.
    inner_map_fd: Fd = |a: Attr<'_>| a.u32(20);
    /// NUMA node, with [`MapFlags::NUMA_NODE`].
    numa_node: u32 = |a: Attr<'_>| a.u32(24);
    /// Name.
    map_name: [u8; OBJ_NAME_LEN] = |a: Attr<'_>| array_at(a.0, 28);
    /// Interface whose device holds the map.
    map_ifindex: u32 = |a: Attr<'_>| a.u32(44);
    /// BTF with the types of key and value.
    btf_fd: Fd = |a: Attr<'_>| a.u32(48);
    /// The key's type.
    btf_key_type_id: u32 = |a: Attr<'_>| a.u32(52);
    /// The value's type.
    btf_value_type_id: u32 = |a: Attr<'_>| a.u32(56);
    /// `struct_ops`: the value's type in the kernel's BTF.
    btf_vmlinux_value_type_id: u32 = |a: Attr<'_>| a.u32(60);
    /// What the type makes of it.
    map_extra: u64 = |a: Attr<'_>| a.u64(64);
    /// `struct_ops`: the BTF of a module.
    value_type_btf_obj_fd: Fd = |a: Attr<'_>| a.u32(72);
    /// Token, with [`MapFlags::TOKEN_FD`].
    map_token_fd: Fd = |a: Attr<'_>| a.u32(76);
    /// Address of the hash of the only program that may use the map.
    excl_prog_hash: u64 = |a: Attr<'_>| a.u64(80);
    /// Bytes of that hash.
    excl_prog_hash_size: u32 = |a: Attr<'_>| a.u32(88);
}

attr! {
    /// The arguments of `BPF_PROG_LOAD`.
    ProgLoadAttr, ends at 168:
    /// Type.
    prog_type: ProgType = |a: Attr<'_>| ProgType(a.u32(0));
    /// Number of instructions.
    insn_cnt: u32 = |a: Attr<'_>| a.u32(4);
    /// Address of the instructions.
    insns: u64 = |a: Attr<'_>| a.u64(8);
    /// Address of the licence, with its NUL.
    license: u64 = |a: Attr<'_>| a.u64(16);
    /// What the log tells.
    log_level: u32 = |a: Attr<'_>| a.u32(24);
    /// Bytes of the log's buffer.
    log_size: u32 = |a: Attr<'_>| a.u32(28);
    /// Address of the log's buffer.
    log_buf: u64 = |a: Attr<'_>| a.u64(32);
    /// Flags.
    prog_flags: ProgFlags = |a: Attr<'_>| ProgFlags::from_bits_retain(a.u32(44));
    /// Name.
    prog_name: [u8; OBJ_NAME_LEN] = |a: Attr<'_>| array_at(a.0, 48);
    /// Interface whose device runs the program.
    prog_ifindex: u32 = |a: Attr<'_>| a.u32(64);
    /// What it will be attached to.
    expected_attach_type: AttachType = |a: Attr<'_>| AttachType(a.u32(68));
    /// BTF with the types of functions and lines.
    prog_btf_fd: Fd = |a: Attr<'_>| a.u32(72);
    /// Bytes of the information about one function.
    func_info_rec_size: u32 = |a: Attr<'_>| a.u32(76);
    /// Address of the information about functions.
    func_info: u64 = |a: Attr<'_>| a.u64(80);
    /// Number of functions that there is information about.
    func_info_cnt: u32 = |a: Attr<'_>| a.u32(88);
    /// Bytes of the information about one line.
    line_info_rec_size: u32 = |a: Attr<'_>| a.u32(92);
    /// Address of the information about lines.
    line_info: u64 = |a: Attr<'_>| a.u64(96);
    /// Number of lines that there is information about.
    line_info_cnt: u32 = |a: Attr<'_>| a.u32(104);
    /// Function of the kernel that it will be attached to.
    attach_btf_id: u32 = |a: Attr<'_>| a.u32(108);
    /// Program that it will be attached to, or BTF that the function is in.
    attach_prog_fd: Fd = |a: Attr<'_>| a.u32(112);
    /// Number of relocations.
    core_relo_cnt: u32 = |a: Attr<'_>| a.u32(116);
    /// Address of the fds that instructions name by index.
    fd_array: u64 = |a: Attr<'_>| a.u64(120);
    /// Token, with [`ProgFlags::TOKEN_FD`].
    prog_token_fd: Fd = |a: Attr<'_>| a.u32(144);
    /// Address of the relocations.
    core_relos: u64 = |a: Attr<'_>| a.u64(128);
    /// Bytes of a relocation.
    core_relo_rec_size: u32 = |a: Attr<'_>| a.u32(136);
    /// Number of fds that the program holds, whether instructions name them or not.
    fd_array_cnt: u32 = |a: Attr<'_>| a.u32(148);
    /// Address of the signature.
    signature: u64 = |a: Attr<'_>| a.u64(152);
    /// Bytes of the signature.
    signature_size: u32 = |a: Attr<'_>| a.u32(160);
}

impl ProgLoadAttr {
    /// Offset of `log_true_size`, which is written back.
    pub const LOG_TRUE_SIZE_AT: usize = 140;
}

attr! {
    /// The arguments of the element commands (`BPF_MAP_LOOKUP_ELEM` and its kin).
    ElemAttr, ends at 32:
    /// Map.
    map_fd: Fd = |a: Attr<'_>| a.u32(0);
    /// Address of the key, `key_size` bytes.
    key: u64 = |a: Attr<'_>| a.u64(8);
    /// Address of the value, or of the next key.
    value: u64 = |a: Attr<'_>| a.u64(16);
    /// Flags.
    flags: UpdateFlags = |a: Attr<'_>| UpdateFlags::from_bits_retain(a.u64(24));
}

attr! {
    /// The arguments of the batch commands.
    BatchAttr, ends at 56:
    /// Address of the token to go on from, or 0.
    in_batch: u64 = |a: Attr<'_>| a.u64(0);
    /// Address for the next token.
    out_batch: u64 = |a: Attr<'_>| a.u64(8);
    /// Address of the keys.
    keys: u64 = |a: Attr<'_>| a.u64(16);
    /// Address of the values.
    values: u64 = |a: Attr<'_>| a.u64(24);
    /// Number of elements; written back.
    count: u32 = |a: Attr<'_>| a.u32(32);
    /// Map.
    map_fd: Fd = |a: Attr<'_>| a.u32(36);
    /// Flags of each element.
    elem_flags: UpdateFlags = |a: Attr<'_>| UpdateFlags::from_bits_retain(a.u64(40));
    /// Flags of the batch.
    flags: u64 = |a: Attr<'_>| a.u64(48);
}

impl BatchAttr {
    /// Offset of `count`, which is written back.
    pub const COUNT_AT: usize = 32;
}

attr! {
    /// The arguments of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
    ObjAttr, ends at 20:
    /// Address of the path, with its NUL.
    pathname: u64 = |a: Attr<'_>| a.u64(0);
    /// The object to pin.
    bpf_fd: Fd = |a: Attr<'_>| a.u32(8);
    /// Flags.
    file_flags: u32 = |a: Attr<'_>| a.u32(12);
    /// Directory that a relative path starts from, with `BPF_F_PATH_FD`.
    path_fd: Fd = |a: Attr<'_>| a.u32(16);
}

attr! {
    /// The arguments of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
    ProgAttachAttr, ends at 32:
    /// Cgroup, or what else the program is attached to.
    target_fd: Fd = |a: Attr<'_>| a.u32(0);
    /// Program.
    attach_bpf_fd: Fd = |a: Attr<'_>| a.u32(4);
    /// Place.
    attach_type: AttachType = |a: Attr<'_>| AttachType(a.u32(8));
    /// Flags.
    attach_flags: AttachFlags = |a: Attr<'_>| AttachFlags::from_bits_retain(a.u32(12));
    /// The program whose place is taken, with [`AttachFlags::REPLACE`].
    replace_bpf_fd: Fd = |a: Attr<'_>| a.u32(16);
}

impl ProgAttachAttr {
    /// Offset of the fields that say where among the programs: `relative_fd` and `expected_revision`.
    pub const ORDER_AT: usize = 20;
}

attr! {
    /// The arguments of `BPF_LINK_CREATE`, as far as cgroups go; those of the other `BPF_LINK_*` begin alike.
    LinkAttr, ends at 16:
    /// Program (or, for an update or detach, the link).
    prog_fd: Fd = |a: Attr<'_>| a.u32(0);
    /// Cgroup (or, for an update, the new program).
    target_fd: Fd = |a: Attr<'_>| a.u32(4);
    /// Place (or, for an update, the flags).
    attach_type: AttachType = |a: Attr<'_>| AttachType(a.u32(8));
    /// Flags.
    flags: u32 = |a: Attr<'_>| a.u32(12);
}

impl LinkAttr {
    /// The first byte after the last field of `BPF_LINK_CREATE`, for whatever kind of link.
    pub const CREATE_END: usize = 60;
}
