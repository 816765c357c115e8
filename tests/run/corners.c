/* What is refused, or is a limit: the argument says which. */
#include "bpf.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
    if (!strcmp(argv[1], "not-dumpable")) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        say("create", create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
    } else if (!strcmp(argv[1], "few-fds")) {
        struct rlimit few = {16, 16};
        setrlimit(RLIMIT_NOFILE, &few);
        int made = 0, open = 0;
        for (int fd = 0; fd < 16; fd++)
            open += fcntl(fd, F_GETFD) >= 0;
        while (create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0) >= 0)
            made++;
        int number = errno;
        close(5);
        printf("%d open, then %s, then %d\n", open + made, strerror(number), create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
        union bpf_attr attr = {};
        int maps = 0;
        while (!bpf(BPF_MAP_GET_NEXT_ID, &attr)) {
            attr.start_id = attr.next_id;
            maps++;
        }
        printf("%s\n", maps >= made ? "no more maps than fds" : "a map is lost");
#ifdef __x86_64__
    } else if (!strcmp(argv[1], "32-bit")) {
        /* bpf(2) as a 32-bit program calls it. */
        long ret;
        asm volatile("int $0x80" : "=a"(ret) : "a"(357), "b"(0), "c"(0), "d"(0) : "memory");
        printf("%s\n", strerror(-(int)ret));
#endif
    } else if (!strcmp(argv[1], "tracepoint")) {
        union bpf_attr attr = {};
        struct bpf_insn insns[] = {{.code = 0xb7}, {.code = 0x95}};
        attr.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT;
        attr.insns = (long)insns;
        attr.insn_cnt = 2;
        attr.license = (long)"GPL";
        int prog = bpf(BPF_PROG_LOAD, &attr);
        printf("loaded: %d\n", prog >= 0);
        memset(&attr, 0, sizeof attr);
        attr.raw_tracepoint.name = (long)"sys_enter";
        attr.raw_tracepoint.prog_fd = prog;
        say("attach", bpf(BPF_RAW_TRACEPOINT_OPEN, &attr));
    } else if (!strcmp(argv[1], "forever")) {
        int map = create(BPF_MAP_TYPE_HASH, 4, 8, 100, 0);
        for (int key = 0;; key = (key + 1) % 100) {
            long value = key;
            elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, 0);
            elem(BPF_MAP_DELETE_ELEM, map, &key, 0, 0);
            close(create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
        }
    }
    return 0;
}
