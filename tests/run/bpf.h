/* bpf(2) without a library. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int bpf(int cmd, union bpf_attr *attr) {
    return syscall(SYS_bpf, cmd, attr, sizeof *attr);
}

static inline int create(int type, int key_size, int value_size, int max_entries, int flags) {
    union bpf_attr attr = {};
    attr.map_type = type;
    attr.key_size = key_size;
    attr.value_size = value_size;
    attr.max_entries = max_entries;
    attr.map_flags = flags;
    return bpf(BPF_MAP_CREATE, &attr);
}

static inline int elem(int cmd, int fd, void *key, void *value, long flags) {
    union bpf_attr attr = {};
    attr.map_fd = fd;
    attr.key = (long)key;
    attr.value = (long)value;
    attr.flags = flags;
    return bpf(cmd, &attr);
}

static inline int load(int type, struct bpf_insn *insns, int count) {
    union bpf_attr attr = {};
    attr.prog_type = type;
    attr.insns = (long)insns;
    attr.insn_cnt = count;
    attr.license = (long)"GPL";
    return bpf(BPF_PROG_LOAD, &attr);
}

/* Runs a program so many times; what it returned. */
static inline unsigned run(int prog, int repeat) {
    char packet[64] = {};
    union bpf_attr attr = {};
    attr.test.prog_fd = prog;
    attr.test.data_in = (long)packet;
    attr.test.data_size_in = sizeof packet;
    attr.test.repeat = repeat;
    if (bpf(BPF_PROG_TEST_RUN, &attr)) {
        perror("test run");
        return -1;
    }
    return attr.test.retval;
}

/* A line of what a call answered. */
static inline void say(const char *what, long ret) {
    int number = ret < 0 ? errno : 0;
    printf("%s: %ld %s\n", what, ret < 0 ? -1 : ret, number ? strerror(number) : "");
}
