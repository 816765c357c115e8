// Programs and maps as people write them. Built by:
//   clang -O2 -g -target bpf -c clients.bpf.c -o clients.bpf.o
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

// Set before loading.
const volatile __u32 step = 1;
// Read and written while it is loaded.
__u64 total = 0;
__u32 limit = 1000;

struct event {
    __u32 key;
    __u32 count;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} per_cpu SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
} samples SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __uint(pinning, LIBBPF_PIN_BY_NAME);
    __type(key, __u32);
    __type(value, __u64);
} shared SEC(".maps");

// Counts the packets by their first byte, and tells of each.
SEC("xdp")
int count(struct xdp_md *ctx)
{
    __u8 *data = (__u8 *)(long)ctx->data;
    __u8 *end = (__u8 *)(long)ctx->data_end;
    if (data + 1 > end)
        return XDP_ABORTED;
    __u32 key = data[0], zero = 0;
    __u64 first = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &key);
    if (!value) {
        if (bpf_map_update_elem(&counts, &key, &first, BPF_NOEXIST))
            return XDP_DROP;
        value = bpf_map_lookup_elem(&counts, &key);
        if (!value)
            return XDP_ABORTED;
    }
    __sync_fetch_and_add(value, step);
    __sync_fetch_and_add(&total, step);
    __u64 *mine = bpf_map_lookup_elem(&per_cpu, &zero);
    if (mine)
        *mine += step;
    struct event event = { .key = key, .count = (__u32)*value };
    bpf_ringbuf_output(&events, &event, sizeof(event), 0);
    bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU, &event, sizeof(event));
    return *value > limit ? XDP_DROP : XDP_PASS;
}

// Lets everything out.
SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
    return 1;
}
