//! Which words of an attr are addresses, by command.
//!
//! Source: `include/uapi/linux/bpf.h`, `union bpf_attr` (v6.18).

use crate::abi::Cmd;

/// Offsets of the addresses in a command's attr; `None`: any word may be one, of a command that is not known here.
pub(super) const fn pointer_fields(cmd: Cmd) -> Option<&'static [usize]> {
    Some(match cmd {
        Cmd::MAP_CREATE => &[80],
        Cmd::MAP_LOOKUP_ELEM
        | Cmd::MAP_UPDATE_ELEM
        | Cmd::MAP_DELETE_ELEM
        | Cmd::MAP_GET_NEXT_KEY
        | Cmd::MAP_LOOKUP_AND_DELETE_ELEM => &[8, 16],
        Cmd::MAP_LOOKUP_BATCH
        | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
        | Cmd::MAP_UPDATE_BATCH
        | Cmd::MAP_DELETE_BATCH => &[0, 8, 16, 24],
        Cmd::PROG_LOAD => &[8, 16, 32, 80, 96, 120, 128, 152],
        Cmd::OBJ_PIN | Cmd::OBJ_GET | Cmd::RAW_TRACEPOINT_OPEN | Cmd::PROG_STREAM_READ_BY_FD => {
            &[0]
        }
        Cmd::PROG_TEST_RUN => &[16, 24, 48, 56],
        Cmd::OBJ_GET_INFO_BY_FD => &[INFO_AT],
        Cmd::PROG_QUERY => &[16, 32, 40, 48],
        Cmd::BTF_LOAD => &[0, 8],
        Cmd::TASK_FD_QUERY => &[16],
        // Each kind of link has addresses at other places.
        Cmd::LINK_CREATE => &[16, 24, 32, 40, 48, 56],
        Cmd::PROG_ATTACH
        | Cmd::PROG_DETACH
        | Cmd::PROG_GET_NEXT_ID
        | Cmd::MAP_GET_NEXT_ID
        | Cmd::PROG_GET_FD_BY_ID
        | Cmd::MAP_GET_FD_BY_ID
        | Cmd::BTF_GET_FD_BY_ID
        | Cmd::MAP_FREEZE
        | Cmd::BTF_GET_NEXT_ID
        | Cmd::LINK_UPDATE
        | Cmd::LINK_GET_FD_BY_ID
        | Cmd::LINK_GET_NEXT_ID
        | Cmd::ENABLE_STATS
        | Cmd::ITER_CREATE
        | Cmd::LINK_DETACH
        | Cmd::PROG_BIND_MAP
        | Cmd::TOKEN_CREATE
        | Cmd::PROG_ASSOC_STRUCT_OPS => &[],
        _ => return None,
    })
}

/// Offset of the address of the info, of `BPF_OBJ_GET_INFO_BY_FD`. The info holds addresses itself.
pub(super) const INFO_AT: usize = 8;

/// Offsets of the addresses in the info of a file, by what its link in `/proc/self/fd` is; `None`: any word may be one.
///
/// Source: `include/uapi/linux/bpf.h`, `struct bpf_prog_info`, `bpf_map_info`, `bpf_btf_info` (v6.18).
pub(super) fn info_pointers(file: &str) -> Option<&'static [usize]> {
    Some(match file {
        "anon_inode:bpf-map" => &[88],
        "anon_inode:bpf-prog" => &[24, 32, 56, 112, 120, 136, 152, 160, 184],
        "anon_inode:btf" => &[0, 16],
        // Each kind of link has addresses at other places.
        _ => return None,
    })
}

/// Whether a command gives an fd.
pub(super) const fn gives_fd(cmd: Cmd) -> bool {
    matches!(
        cmd,
        Cmd::MAP_CREATE
            | Cmd::PROG_LOAD
            | Cmd::OBJ_GET
            | Cmd::PROG_GET_FD_BY_ID
            | Cmd::MAP_GET_FD_BY_ID
            | Cmd::RAW_TRACEPOINT_OPEN
            | Cmd::BTF_LOAD
            | Cmd::BTF_GET_FD_BY_ID
            | Cmd::LINK_CREATE
            | Cmd::LINK_GET_FD_BY_ID
            | Cmd::ENABLE_STATS
            | Cmd::ITER_CREATE
            | Cmd::TOKEN_CREATE
    )
}
