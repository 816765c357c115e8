//! Helpers as the verifier knows them: their names, how many arguments they take, and which programs may call them.
//!
//! The columns were read off the running kernel: for each type of program, the answer to a program that does nothing but
//! call the helper.
//!
//! Source: `include/uapi/linux/bpf.h`, `enum bpf_func_id`; the `get_func_proto` of each type (v6.18).

use crate::abi::{AttachType, ProgType};

/// What a helper wants as its first argument, as the verifier names it; empty: a context, or anything.
pub(super) type First = &'static str;

const ANY: First = "";
const MAP: First = "map_ptr";
const VALUE: First = "map_value";
const VALUE_OR_PTR: First = "map_value, ptr_";
const RECORD: First = "ringbuf_mem";
const DYNPTR: First = "fp, dynptr_ptr";
const SOCKET: First = "sock_common, sock, tcp_sock, xdp_sock";
pub(super) const SOCKET_OR_PTR: First = "sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_";
const PERCPU: First = "percpu_ptr_, percpu_rcu_ptr_, percpu_trusted_ptr_";
pub(super) const PTR: First = "ptr_, trusted_ptr_, rcu_ptr_";
const MEM: First = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_";

/// What a helper leaves in R0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Returns {
    Nothing,
    Scalar,
    Pointer,
}
use Returns::{Nothing, Pointer, Scalar};

/// One helper.
#[derive(Clone, Copy, Debug)]
pub(super) struct Helper {
    /// Without `bpf_`.
    pub(super) name: &'static str,
    /// Number of arguments that have to be there.
    pub(super) args: u8,
    pub(super) first: First,
    pub(super) returns: Returns,
    /// Only for programs whose licence is compatible with the GPL.
    pub(super) gpl_only: bool,
    /// Who may call it: a bit for each column.
    columns: u64,
}

const fn helper(
    name: &'static str,
    args: u8,
    first: First,
    returns: Returns,
    columns: u64,
) -> Helper {
    Helper {
        name,
        args,
        first,
        returns,
        gpl_only: false,
        columns,
    }
}

impl Helper {
    /// The helper of that number.
    pub(super) fn of(number: u32) -> Option<&'static Self> {
        HELPERS.get(number as usize)
    }

    const fn gpl(mut self) -> Self {
        self.gpl_only = true;
        self
    }

    /// A program of that type may call it. What the types that are attached to functions of the kernel may call depends on
    /// the function: all is allowed.
    pub(super) fn is_for(&self, prog_type: ProgType, attach_type: AttachType) -> bool {
        matches!(
            prog_type,
            ProgType::TRACING | ProgType::STRUCT_OPS | ProgType::EXT | ProgType::LSM
        ) || self.columns & 1 << column(prog_type, attach_type) != 0
    }
}

/// The column of a type of program: its number, but for the places of some types that differ from the others.
fn column(prog_type: ProgType, attach_type: AttachType) -> u32 {
    match (prog_type, attach_type.0) {
        (ProgType::CGROUP_SOCK_ADDR, 10 | 11) => 33,
        (ProgType::CGROUP_SOCK_ADDR, 19 | 20 | 29..=32 | 51..=53) => 34,
        (ProgType::CGROUP_SOCKOPT, 22) => 35,
        _ => prog_type.0,
    }
}

/// By number; nobody may call the first.
#[rustfmt::skip]
const HELPERS: &[Helper] = &[
    helper("unspec", 0, ANY, Scalar, 0),
    helper("map_lookup_elem", 2, MAP, Pointer, 0xf_c3ef_fffe),
    helper("map_update_elem", 4, MAP, Scalar, 0xf_c3ef_fffe),
    helper("map_delete_elem", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("probe_read", 3, MEM, Scalar, 0x8102_00a4).gpl(),
    helper("ktime_get_ns", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("trace_printk", 2, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("get_prandom_u32", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("get_smp_processor_id", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("skb_store_bytes", 5, ANY, Scalar, 0x5018),
    helper("l3_csum_replace", 5, ANY, Scalar, 0x1018),
    helper("l4_csum_replace", 5, ANY, Scalar, 0x1018),
    helper("tail_call", 3, ANY, Scalar, 0xf_c3ef_fffe),
    helper("clone_redirect", 3, ANY, Scalar, 0x1018),
    helper("get_current_pid_tgid", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("get_current_uid_gid", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("get_current_comm", 2, MEM, Scalar, 0xf_c3ef_fffe),
    helper("get_cgroup_classid", 1, ANY, Scalar, 0xf_c3ef_fffe),
    helper("skb_vlan_push", 3, ANY, Scalar, 0x18),
    helper("skb_vlan_pop", 1, ANY, Scalar, 0x18),
    helper("skb_get_tunnel_key", 4, ANY, Scalar, 0x1018),
    helper("skb_set_tunnel_key", 4, ANY, Scalar, 0x1018),
    helper("perf_event_read", 2, MAP, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("redirect", 2, ANY, Scalar, 0x1058),
    helper("get_route_realm", 1, ANY, Scalar, 0x8_1c18),
    helper("perf_event_output", 5, ANY, Scalar, 0xe_c38f_fffe).gpl(),
    helper("skb_load_bytes", 4, ANY, Scalar, 0x68_5d1a),
    helper("get_stackid", 3, ANY, Scalar, 0x8102_00a4).gpl(),
    helper("csum_diff", 5, MEM, Scalar, 0x8_1c58),
    helper("skb_get_tunnel_opt", 3, ANY, Scalar, 0x1018),
    helper("skb_set_tunnel_opt", 3, ANY, Scalar, 0x1018),
    helper("skb_change_proto", 3, ANY, Scalar, 0x18),
    helper("skb_change_type", 2, ANY, Scalar, 0x18),
    helper("skb_under_cgroup", 3, ANY, Scalar, 0x8_1c18),
    helper("get_hash_recalc", 1, ANY, Scalar, 0x8_1c18),
    helper("get_current_task", 0, ANY, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("probe_write_user", 3, ANY, Scalar, 0x0),
    helper("current_task_under_cgroup", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("skb_change_tail", 3, ANY, Scalar, 0x5018),
    helper("skb_pull_data", 2, ANY, Scalar, 0x8_5c18),
    helper("csum_update", 2, ANY, Scalar, 0x1018),
    helper("set_hash_invalid", 1, ANY, Scalar, 0x1018),
    helper("get_numa_node_id", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("skb_change_head", 3, ANY, Scalar, 0x5018),
    helper("xdp_adjust_head", 2, ANY, Scalar, 0x40),
    helper("probe_read_str", 3, MEM, Scalar, 0x8102_00a4).gpl(),
    helper("get_socket_cookie", 1, ANY, Scalar, 0x6_8024_631a),
    helper("get_socket_uid", 1, ANY, Scalar, 0x411a),
    helper("set_hash", 2, ANY, Scalar, 0x18),
    helper("setsockopt", 5, ANY, Scalar, 0xe_0004_2000),
    helper("skb_adjust_room", 4, ANY, Scalar, 0x4018),
    helper("redirect_map", 3, MAP, Scalar, 0x40),
    helper("sk_redirect_map", 4, ANY, Scalar, 0x4000),
    helper("sock_map_update", 4, ANY, Scalar, 0x2000),
    helper("xdp_adjust_meta", 2, ANY, Scalar, 0x40),
    helper("perf_event_read_value", 4, MAP, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("perf_prog_read_value", 3, ANY, Scalar, 0x80).gpl(),
    helper("getsockopt", 5, ANY, Scalar, 0xe_0004_2000),
    helper("override_return", 2, ANY, Scalar, 0x0),
    helper("sock_ops_cb_flags_set", 2, ANY, Scalar, 0x2000),
    helper("msg_redirect_map", 4, ANY, Scalar, 0x1_0000),
    helper("msg_apply_bytes", 2, ANY, Scalar, 0x1_0000),
    helper("msg_cork_bytes", 2, ANY, Scalar, 0x1_0000),
    helper("msg_pull_data", 4, ANY, Scalar, 0x1_0000),
    helper("bind", 3, ANY, Scalar, 0x2_0000_0000),
    helper("xdp_adjust_tail", 2, ANY, Scalar, 0x40),
    helper("skb_get_xfrm_state", 5, ANY, Scalar, 0x18),
    helper("get_stack", 4, ANY, Scalar, 0x8102_00a4).gpl(),
    helper("skb_load_bytes_relative", 5, ANY, Scalar, 0x20_011a),
    helper("fib_lookup", 4, ANY, Scalar, 0x58).gpl(),
    helper("sock_hash_update", 4, ANY, Scalar, 0x2000),
    helper("msg_redirect_hash", 4, ANY, Scalar, 0x1_0000),
    helper("sk_redirect_hash", 4, ANY, Scalar, 0x4000),
    helper("lwt_push_encap", 4, ANY, Scalar, 0x1400),
    helper("lwt_seg6_store_bytes", 4, ANY, Scalar, 0x8_0000),
    helper("lwt_seg6_adjust_srh", 3, ANY, Scalar, 0x8_0000),
    helper("lwt_seg6_action", 4, ANY, Scalar, 0x8_0000),
    helper("rc_repeat", 1, ANY, Scalar, 0x0),
    helper("rc_keydown", 4, ANY, Scalar, 0x0),
    helper("skb_cgroup_id", 1, ANY, Scalar, 0x118),
    helper("get_current_cgroup_id", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("get_local_storage", 2, MAP, Pointer, 0xe_0284_a300),
    helper("sk_select_reuseport", 4, ANY, Scalar, 0x20_0000),
    helper("skb_ancestor_cgroup_id", 2, ANY, Scalar, 0x118),
    helper("sk_lookup_tcp", 5, ANY, Pointer, 0x6_0004_4158),
    helper("sk_lookup_udp", 5, ANY, Pointer, 0x6_0004_4158),
    helper("sk_release", 1, SOCKET_OR_PTR, Scalar, 0x6_4004_4158),
    helper("map_push_elem", 3, MAP, Scalar, 0xf_c3ef_fffe),
    helper("map_pop_elem", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("map_peek_elem", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("msg_push_data", 4, ANY, Scalar, 0x1_0000),
    helper("msg_pop_data", 4, ANY, Scalar, 0x1_0000),
    helper("rc_pointer_rel", 3, ANY, Scalar, 0x0),
    helper("spin_lock", 1, VALUE_OR_PTR, Scalar, 0xf_c3ef_fffe),
    helper("spin_unlock", 1, VALUE_OR_PTR, Scalar, 0xf_c3ef_fffe),
    helper("sk_fullsock", 1, SOCKET, Pointer, 0x118),
    helper("tcp_sock", 1, SOCKET, Pointer, 0x8_0200_2118),
    helper("skb_ecn_set_ce", 1, ANY, Scalar, 0x118),
    helper("get_listener_sock", 1, SOCKET, Pointer, 0x118),
    helper("skc_lookup_tcp", 5, ANY, Pointer, 0x6_0004_4158),
    helper("tcp_check_syncookie", 5, SOCKET_OR_PTR, Scalar, 0x58).gpl(),
    helper("sysctl_get_name", 4, ANY, Scalar, 0x80_0000),
    helper("sysctl_get_current_value", 3, ANY, Scalar, 0x80_0000),
    helper("sysctl_get_new_value", 3, ANY, Scalar, 0x80_0000),
    helper("sysctl_set_new_value", 3, ANY, Scalar, 0x80_0000),
    helper("strtol", 4, MEM, Scalar, 0xf_c3ef_fffe),
    helper("strtoul", 4, MEM, Scalar, 0xf_c3ef_fffe),
    helper("sk_storage_get", 4, MAP, Pointer, 0xe_8205_2318),
    helper("sk_storage_delete", 2, MAP, Scalar, 0xe_8205_2118),
    helper("send_signal", 1, ANY, Scalar, 0xf_c3ef_fffe),
    helper("tcp_gen_syncookie", 5, SOCKET_OR_PTR, Scalar, 0x58).gpl(),
    helper("skb_output", 5, PTR, Scalar, 0x8000_0000).gpl(),
    helper("probe_read_user", 3, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("probe_read_kernel", 3, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("probe_read_user_str", 3, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("probe_read_kernel_str", 3, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("tcp_send_ack", 2, ANY, Scalar, 0x0),
    helper("send_signal_thread", 1, ANY, Scalar, 0xf_c3ef_fffe),
    helper("jiffies64", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("read_branch_records", 4, ANY, Scalar, 0x80).gpl(),
    helper("get_ns_current_pid_tgid", 4, ANY, Scalar, 0xf_c3ef_fffe),
    helper("xdp_output", 5, PTR, Scalar, 0x8000_0000).gpl(),
    helper("get_netns_cookie", 1, ANY, Scalar, 0xe_0205_231a),
    helper("get_current_ancestor_cgroup_id", 1, ANY, Scalar, 0xf_c3ef_fffe),
    helper("sk_assign", 3, ANY, Scalar, 0x4000_0018),
    helper("ktime_get_boot_ns", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("seq_printf", 5, ANY, Scalar, 0x0),
    helper("seq_write", 3, ANY, Scalar, 0x0),
    helper("sk_cgroup_id", 1, SOCKET_OR_PTR, Scalar, 0x100),
    helper("sk_ancestor_cgroup_id", 2, SOCKET_OR_PTR, Scalar, 0x100),
    helper("ringbuf_output", 4, MAP, Scalar, 0xf_c3ef_fffe),
    helper("ringbuf_reserve", 3, MAP, Pointer, 0xf_c3ef_fffe),
    helper("ringbuf_submit", 2, RECORD, Nothing, 0xf_c3ef_fffe),
    helper("ringbuf_discard", 2, RECORD, Nothing, 0xf_c3ef_fffe),
    helper("ringbuf_query", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("csum_level", 2, ANY, Scalar, 0x1018),
    helper("skc_to_tcp6_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("skc_to_tcp_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("skc_to_tcp_timewait_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("skc_to_tcp_request_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("skc_to_udp6_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("get_task_stack", 4, PTR, Scalar, 0xf_c3ef_fffe),
    helper("load_hdr_opt", 4, ANY, Scalar, 0x2000),
    helper("store_hdr_opt", 4, ANY, Scalar, 0x2000),
    helper("reserve_hdr_opt", 3, ANY, Scalar, 0x2000),
    helper("inode_storage_get", 4, ANY, Pointer, 0x0),
    helper("inode_storage_delete", 2, ANY, Scalar, 0x0),
    helper("d_path", 3, PTR, Scalar, 0x8000_0000),
    helper("copy_from_user", 3, MEM, Scalar, 0xf_c3ef_fffe),
    helper("snprintf_btf", 5, MEM, Scalar, 0xf_c3ef_fffe),
    helper("seq_printf_btf", 4, ANY, Scalar, 0x0),
    helper("skb_cgroup_classid", 1, ANY, Scalar, 0x18),
    helper("redirect_neigh", 4, ANY, Scalar, 0x18),
    helper("per_cpu_ptr", 2, PERCPU, Pointer, 0xf_c3ef_fffe),
    helper("this_cpu_ptr", 1, PERCPU, Pointer, 0xf_c3ef_fffe),
    helper("redirect_peer", 2, ANY, Scalar, 0x18),
    helper("task_storage_get", 4, MAP, Pointer, 0xf_c3ef_fffe),
    helper("task_storage_delete", 2, MAP, Scalar, 0xf_c3ef_fffe),
    helper("get_current_task_btf", 0, ANY, Pointer, 0xf_c3ef_fffe).gpl(),
    helper("bprm_opts_set", 2, ANY, Scalar, 0x0),
    helper("ktime_get_coarse_ns", 0, ANY, Scalar, 0x6_40ed_7f5a),
    helper("ima_inode_hash", 3, ANY, Scalar, 0x0),
    helper("sock_from_file", 1, PTR, Pointer, 0x8000_0000),
    helper("check_mtu", 5, ANY, Scalar, 0x58).gpl(),
    helper("for_each_map_elem", 4, MAP, Scalar, 0xf_c3ef_fffe),
    helper("snprintf", 5, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("sys_bpf", 3, ANY, Scalar, 0x8000_0000),
    helper("btf_find_by_name_kind", 4, MEM, Scalar, 0x8000_0000),
    helper("sys_close", 1, ANY, Scalar, 0x8000_0000),
    helper("timer_init", 3, VALUE, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("timer_set_callback", 2, VALUE, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("timer_start", 3, VALUE, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("timer_cancel", 1, VALUE, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("get_func_ip", 1, ANY, Scalar, 0x8102_00a4).gpl(),
    helper("get_attach_cookie", 1, ANY, Scalar, 0x102_00a4),
    helper("task_pt_regs", 1, PTR, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("get_branch_snapshot", 3, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("trace_vprintk", 4, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("skc_to_unix_sock", 1, SOCKET_OR_PTR, Pointer, 0x6_c04d_7d5a),
    helper("kallsyms_lookup_name", 4, MEM, Scalar, 0x8000_0000),
    helper("find_vma", 5, PTR, Scalar, 0xf_c3ef_fffe),
    helper("loop", 4, ANY, Scalar, 0xf_c3ef_fffe),
    helper("strncmp", 3, MEM, Scalar, 0xf_c3ef_fffe),
    helper("get_func_arg", 3, ANY, Scalar, 0x0),
    helper("get_func_ret", 2, ANY, Scalar, 0x0),
    helper("get_func_arg_cnt", 1, ANY, Scalar, 0x0),
    helper("get_retval", 0, ANY, Scalar, 0xa_0204_0200),
    helper("set_retval", 1, ANY, Scalar, 0xa_0204_0200),
    helper("xdp_get_buff_len", 1, ANY, Scalar, 0x8000_0040),
    helper("xdp_load_bytes", 4, ANY, Scalar, 0x40),
    helper("xdp_store_bytes", 4, ANY, Scalar, 0x40),
    helper("copy_from_user_task", 5, MEM, Scalar, 0xf_c3ef_fffe).gpl(),
    helper("skb_set_tstamp", 3, ANY, Scalar, 0x18),
    helper("ima_file_hash", 3, ANY, Scalar, 0x0),
    helper("kptr_xchg", 2, VALUE_OR_PTR, Pointer, 0xf_c3ef_fffe),
    helper("map_lookup_percpu_elem", 3, MAP, Pointer, 0xf_c3ef_fffe),
    helper("skc_to_mptcp_sock", 1, SOCKET, Pointer, 0x6_c04d_7d5a),
    helper("dynptr_from_mem", 4, MEM, Scalar, 0xf_c3ef_fffe),
    helper("ringbuf_reserve_dynptr", 4, MAP, Scalar, 0xf_c3ef_fffe),
    helper("ringbuf_submit_dynptr", 2, DYNPTR, Nothing, 0xf_c3ef_fffe),
    helper("ringbuf_discard_dynptr", 2, DYNPTR, Nothing, 0xf_c3ef_fffe),
    helper("dynptr_read", 5, MEM, Scalar, 0xf_c3ef_fffe),
    helper("dynptr_write", 5, DYNPTR, Scalar, 0xf_c3ef_fffe),
    helper("dynptr_data", 3, DYNPTR, Pointer, 0xf_c3ef_fffe),
    helper("tcp_raw_gen_syncookie_ipv4", 3, MEM, Scalar, 0x58).gpl(),
    helper("tcp_raw_gen_syncookie_ipv6", 3, MEM, Scalar, 0x58).gpl(),
    helper("tcp_raw_check_syncookie_ipv4", 2, MEM, Scalar, 0x58).gpl(),
    helper("tcp_raw_check_syncookie_ipv6", 2, MEM, Scalar, 0x58).gpl(),
    helper("ktime_get_tai_ns", 0, ANY, Scalar, 0xf_c3ef_fffe),
    helper("user_ringbuf_drain", 4, MAP, Scalar, 0xf_c3ef_fffe),
    helper("cgrp_storage_get", 4, MAP, Pointer, 0xf_c3ef_fffe),
    helper("cgrp_storage_delete", 2, MAP, Scalar, 0xf_c3ef_fffe),
];
