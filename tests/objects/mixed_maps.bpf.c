// Both styles in one object: larger structs, as aya and tc(8) have them, and BTF. See tests/objects.rs for how it is compiled.

typedef unsigned int __u32;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
	__u32 id;
	__u32 pinning;
};

struct {
	__uint(type, 9); // LRU_HASH
	__uint(key_size, 4);
	__uint(value_size, 4);
	__uint(max_entries, 64);
} recent SEC(".maps");

struct bpf_map_def SEC("maps") shared = {
	.type = 1, // HASH
	.key_size = 4,
	.value_size = 8,
	.max_entries = 16,
	.id = 5,
	.pinning = 1, // by name
};

extern int bpf_some_kernel_function(int) __attribute__((section(".ksyms"))) __attribute__((weak));
extern const int some_kernel_variable __attribute__((section(".ksyms"))) __attribute__((weak));

SEC("socket")
int prog(void *ctx)
{
	return bpf_some_kernel_function(1) + (&some_kernel_variable ? 1 : 0);
}
