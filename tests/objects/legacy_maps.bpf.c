// Maps declared in the old style. See tests/objects.rs for how it is compiled.

typedef unsigned int __u32;

#define SEC(name) __attribute__((section(name), used))

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
};

struct bpf_map_def SEC("maps") counts = {
	.type = 1, // HASH
	.key_size = 8,
	.value_size = 16,
	.max_entries = 1024,
	.map_flags = 1, // BPF_F_NO_PREALLOC
};

struct bpf_map_def SEC("maps") settings = {
	.type = 2, // ARRAY
	.key_size = 4,
	.value_size = 4,
	.max_entries = 10,
};

// What BPF_ANNOTATE_KV_PAIR(settings, __u32, int) was.
struct ____btf_map_settings {
	__u32 key;
	int value;
};
struct ____btf_map_settings __attribute__((section(".maps.settings"), used))
	____btf_map_settings = {};

int answer = 42;

SEC("socket")
int prog(void *ctx)
{
	return answer;
}
