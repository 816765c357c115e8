//! Structs of the kernel that pointers in values are likely to point to.
//!
//! A kptr to a struct that the kernel does not have is a pointer to an object of the program. The kernel knows its own
//! structs by its BTF, some ten thousand; these are the ones that matter in practice. A kernel struct that is not listed
//! here is taken for the program's.

/// Those whose references the kernel can give back when a map goes.
const RELEASED: [&[u8]; 4] = [b"bpf_cpumask", b"bpf_crypto_ctx", b"cgroup", b"task_struct"];

/// Others, sorted.
#[rustfmt::skip]
const KNOWN: [&[u8]; 136] = [
    b"Qdisc", b"__sk_buff", b"address_space", b"bio", b"block_device", b"bpf_dynptr", b"bpf_iter_num",
    b"bpf_link", b"bpf_list_head", b"bpf_list_node", b"bpf_map", b"bpf_prog", b"bpf_rb_node", b"bpf_rb_root",
    b"bpf_refcount", b"bpf_res_spin_lock", b"bpf_sock", b"bpf_sock_addr", b"bpf_sock_ops", b"bpf_spin_lock",
    b"bpf_task_work", b"bpf_timer", b"bpf_wq", b"cgroup_namespace", b"cgroup_subsys_state", b"cpumask", b"cred",
    b"css_set", b"dentry", b"device", b"dst_entry", b"ethhdr", b"eventfd_ctx", b"fib_table", b"file",
    b"files_struct", b"flowi4", b"folio", b"freezer", b"fs_struct", b"gendisk", b"hlist_head", b"hlist_node",
    b"in6_addr", b"in_addr", b"inet_sock", b"inode", b"io_kiocb", b"iov_iter", b"ipc_namespace", b"iphdr",
    b"ipv6hdr", b"kernfs_node", b"key", b"kiocb", b"kmem_cache", b"kobject", b"kref", b"linux_binprm",
    b"list_head", b"mem_cgroup", b"mm_struct", b"mnt_namespace", b"module", b"mount", b"msghdr", b"mutex",
    b"napi_struct", b"neighbour", b"net", b"net_device", b"nf_conn", b"node", b"nsproxy", b"page", b"path",
    b"perf_event", b"pglist_data", b"pid", b"pid_namespace", b"pipe_inode_info", b"proto_ops", b"pt_regs",
    b"raw_spinlock", b"rb_node", b"rb_root", b"refcount_struct", b"request", b"request_queue", b"request_sock",
    b"rq", b"rw_semaphore", b"sched_domain", b"sched_entity", b"seq_file", b"sighand_struct", b"signal_struct",
    b"sk_buff", b"sk_msg", b"sk_reuseport_kern", b"skb_shared_info", b"sock", b"sock_common", b"sockaddr",
    b"sockaddr_in", b"sockaddr_in6", b"sockaddr_un", b"socket", b"spinlock", b"super_block", b"task_group",
    b"tcp6_sock", b"tcp_request_sock", b"tcp_sock", b"tcp_timewait_sock", b"tcphdr", b"timer_list",
    b"timespec64", b"trace_event_call", b"tty_struct", b"udp6_sock", b"udp_sock", b"udphdr", b"unix_sock",
    b"user_namespace", b"user_struct", b"uts_namespace", b"vfsmount", b"vm_area_struct", b"wait_queue_head",
    b"work_struct", b"workqueue_struct", b"xdp_buff", b"xdp_frame", b"xdp_md", b"zone",
];

/// The kernel has a struct of that name.
pub(super) fn is_known(name: &[u8]) -> bool {
    number(name).is_some()
}

/// The name that such a number stands for.
pub(super) fn name(number: u32) -> Option<&'static str> {
    let index = (number as usize).checked_sub(1)?;
    let name = RELEASED.iter().chain(&KNOWN).nth(index)?;
    str::from_utf8(name).ok()
}

/// A number that stands for the kernel's struct of that name.
pub(super) fn number(name: &[u8]) -> Option<u32> {
    let released = RELEASED.iter().position(|own| *own == name);
    let known = || KNOWN.binary_search(&name).ok();
    let index = released.or_else(|| Some(RELEASED.len() + known()?))?;
    Some(u32::try_from(index).expect("a short list") + 1)
}

/// The kernel knows what to do with a reference to such a struct that nobody holds any more.
pub(super) fn can_be_released(name: &[u8]) -> bool {
    RELEASED.contains(&name)
}
