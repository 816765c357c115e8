// Maps declared with BTF, and sections of variables. See tests/objects.rs for how it is compiled.

typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __hidden __attribute__((visibility("hidden")))

struct bpf_spin_lock {
	__u32 val;
};

struct flow {
	__u32 src;
	__u32 dst;
};

struct counter {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 packets;
};

// First in the section, though its name is the last.
struct {
	__uint(type, 1); // HASH
	__type(key, struct flow);
	__type(value, struct counter);
	__uint(max_entries, 128);
	__uint(map_flags, 1); // BPF_F_NO_PREALLOC
} zz_flows SEC(".maps");

struct inner {
	__uint(type, 2); // ARRAY
	__uint(key_size, 4);
	__uint(value_size, 8);
	__uint(max_entries, 4);
} inner_one SEC(".maps"), inner_two SEC(".maps");

struct {
	__uint(type, 12); // ARRAY_OF_MAPS
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer_array SEC(".maps") = {
	.values = { [0] = &inner_one, [2] = &inner_two },
};

struct {
	__uint(type, 13); // HASH_OF_MAPS
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__array(values, struct {
		__uint(type, 1); // HASH
		__uint(max_entries, 16);
		__type(key, __u64);
		__type(value, __u64);
	});
} outer_hash_with_a_long_name SEC(".maps");

struct {
	__uint(type, 27); // RINGBUF
	__uint(max_entries, 5000); // not a power of two of pages
} events SEC(".maps");

struct {
	__uint(type, 4); // PERF_EVENT_ARRAY, one for each CPU
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps");

struct {
	__uint(type, 30); // BLOOM_FILTER
	__type(value, __u32);
	__uint(max_entries, 100);
	__uint(map_extra, 3);
} seen SEC(".maps");

struct {
	__uint(type, 2); // ARRAY
	__uint(key_size, 4);
	__type(value, __u64);
	__uint(max_entries, 2);
	__uint(map_flags, 4); // BPF_F_NUMA_NODE
	__uint(numa_node, 0);
	__uint(pinning, 1); // LIBBPF_PIN_BY_NAME
} pinned SEC(".maps");

struct {
	__uint(type, 22); // QUEUE, which has no key
	__uint(max_entries, 4);
	__type(value, __u32);
} jobs SEC(".maps");

int first = 7;
static volatile int second = 8;
__u64 third = 0x1122334455667788;

const volatile int level = 3;
const char banner[6] = "hello";

__u64 total;
static volatile __u32 calls[3];

int in_own_section SEC(".data.custom") = 21;
const int ro_in_own_section SEC(".rodata.with_a_long_name") = 22;
// Seen by nobody outside: not for mapping.
int hidden_one SEC(".data.hidden") __hidden = 5;
static volatile int zeroed SEC(".bss.more");

SEC("socket")
int prog(void *ctx)
{
	total += first + second + level + banner[0] + hidden_one;
	calls[0]++;
	zeroed++;
	return 0;
}

char _license[] SEC("license") = "GPL";
