/* An object with maps of many types, and a program that uses them. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
} events SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, int);
    __type(value, long);
    __uint(max_entries, 16);
    __uint(map_flags, BPF_F_MMAPABLE);
} mapped SEC(".maps");
#define TABLE(name, kind)             \
    struct {                          \
        __uint(type, kind);           \
        __type(key, int);             \
        __type(value, long);          \
        __uint(max_entries, 16);      \
    } name SEC(".maps")
TABLE(hash, BPF_MAP_TYPE_HASH);
TABLE(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH);
TABLE(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY);
TABLE(lru, BPF_MAP_TYPE_LRU_HASH);
struct {
    __uint(type, BPF_MAP_TYPE_QUEUE);
    __type(value, long);
    __uint(max_entries, 16);
} queue SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
    __uint(max_entries, 4);
} jumps SEC(".maps");
struct inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, int);
    __type(value, long);
    __uint(max_entries, 4);
} inner_map SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, int);
    __array(values, struct inner);
} outer SEC(".maps") = {.values = {&inner_map}};

const volatile int step = 5;
int runs;
int more = 42;

SEC("socket")
int filter(struct __sk_buff *skb) {
    int key = 3;
    long *value = bpf_map_lookup_elem(&hash, &key);
    if (value)
        *value += step;
    runs++;
    more++;
    bpf_ringbuf_output(&ring, &key, 4, 0);
    return 0;
}
char _license[] SEC("license") = "GPL";
