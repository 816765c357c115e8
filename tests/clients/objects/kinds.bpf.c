// A map of each kind that has to come from an object. Built as clients.bpf.c.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MAP(name, map_type, key, value, entries, flags) \
    struct {                                            \
        __uint(type, BPF_MAP_TYPE_##map_type);          \
        __uint(key_size, key);                          \
        __uint(value_size, value);                      \
        __uint(max_entries, entries);                   \
        __uint(map_flags, flags);                       \
    } name SEC(".maps")

MAP(lru_hash, LRU_HASH, 4, 8, 4, 0);
MAP(lru_percpu_hash, LRU_PERCPU_HASH, 4, 8, 4, 0);
MAP(prog_array, PROG_ARRAY, 4, 4, 4, 0);
MAP(cgroup_array, CGROUP_ARRAY, 4, 4, 4, 0);
MAP(stack_trace, STACK_TRACE, 4, 8 * 127, 4, 0);
MAP(devmap, DEVMAP, 4, 4, 4, 0);
MAP(devmap_hash, DEVMAP_HASH, 4, 4, 4, 0);
MAP(cpumap, CPUMAP, 4, 4, 2, 0);
MAP(xskmap, XSKMAP, 4, 4, 4, 0);
MAP(sockmap, SOCKMAP, 4, 4, 4, 0);
MAP(sockhash, SOCKHASH, 4, 4, 4, 0);
MAP(reuseport, REUSEPORT_SOCKARRAY, 4, 4, 4, 0);

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u64);
} sk_storage SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_INODE_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u64);
} inode_storage SEC(".maps");

struct {
    __uint(type, 32); // BPF_MAP_TYPE_CGRP_STORAGE
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u64);
} cgrp_storage SEC(".maps");

struct inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, __u32);
    __array(values, struct inner);
} array_of_maps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, __u32);
    __array(values, struct inner);
} hash_of_maps SEC(".maps");

// A program that nothing here can run.
SEC("kprobe/do_nanosleep")
int on_sleep(void *ctx)
{
    return 0;
}
