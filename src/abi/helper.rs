//! Helpers that programs call on maps.
//!
//! Source: `include/uapi/linux/bpf.h`, `enum bpf_func_id`.

use super::numbers;

numbers! {
    /// A helper, `BPF_FUNC_*`: those that take a map, or what lies in one.
    Helper:
    MAP_LOOKUP_ELEM = 1;
    MAP_UPDATE_ELEM = 2;
    MAP_DELETE_ELEM = 3;
    TAIL_CALL = 12;
    PERF_EVENT_READ = 22;
    PERF_EVENT_OUTPUT = 25;
    GET_STACKID = 27;
    SKB_UNDER_CGROUP = 33;
    CURRENT_TASK_UNDER_CGROUP = 37;
    REDIRECT_MAP = 51;
    SK_REDIRECT_MAP = 52;
    SOCK_MAP_UPDATE = 53;
    PERF_EVENT_READ_VALUE = 55;
    MSG_REDIRECT_MAP = 60;
    SOCK_HASH_UPDATE = 70;
    MSG_REDIRECT_HASH = 71;
    SK_REDIRECT_HASH = 72;
    GET_LOCAL_STORAGE = 81;
    SK_SELECT_REUSEPORT = 82;
    MAP_PUSH_ELEM = 87;
    MAP_POP_ELEM = 88;
    MAP_PEEK_ELEM = 89;
    SPIN_LOCK = 93;
    SPIN_UNLOCK = 94;
    SK_STORAGE_GET = 107;
    SK_STORAGE_DELETE = 108;
    RINGBUF_OUTPUT = 130;
    RINGBUF_RESERVE = 131;
    RINGBUF_QUERY = 134;
    INODE_STORAGE_GET = 145;
    INODE_STORAGE_DELETE = 146;
    TASK_STORAGE_GET = 156;
    TASK_STORAGE_DELETE = 157;
    FOR_EACH_MAP_ELEM = 164;
    MAP_LOOKUP_PERCPU_ELEM = 195;
    USER_RINGBUF_DRAIN = 209;
    CGRP_STORAGE_GET = 210;
    CGRP_STORAGE_DELETE = 211;
}
