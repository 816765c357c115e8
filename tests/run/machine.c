/* What a program finds of the machine that it runs on: the time, interfaces, namespaces; and what is counted for it. */
#define _GNU_SOURCE
#include "bpf.h"
#include <fcntl.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

static struct bpf_prog_info info(int prog) {
    struct bpf_prog_info info = {};
    union bpf_attr attr = {};
    attr.info.bpf_fd = prog;
    attr.info.info = (long)&info;
    attr.info.info_len = sizeof info;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
    return info;
}

static void query(const char *what, int fd, int place) {
    union bpf_attr attr = {};
    attr.query.target_fd = fd;
    attr.query.attach_type = place;
    attr.query.prog_cnt = 7;
    say(what, bpf(BPF_PROG_QUERY, &attr));
    printf("%d programs\n", attr.query.prog_cnt);
}

static void time_and_counts(void) {
    /* Milliseconds, nearly. */
    struct bpf_insn insns[] = {{.code = 0x85, .imm = BPF_FUNC_ktime_get_boot_ns}, {.code = 0x77, .imm = 20}, {.code = 0x95}};
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    long expected = (now.tv_sec * 1000000000 + now.tv_nsec) >> 20;
    int prog = load(BPF_PROG_TYPE_SOCKET_FILTER, insns, 3);
    printf("the time is right: %d\n", labs(run(prog, 3) - expected) < 10000);
    printf("loaded right now: %d\n", labs((long)(info(prog).load_time >> 20) - expected) < 10000);
    printf("%lld runs\n", info(prog).run_cnt);
    union bpf_attr attr = {};
    int stats = bpf(BPF_ENABLE_STATS, &attr);
    run(prog, 3);
    printf("%lld runs, in some time: %d\n", info(prog).run_cnt, info(prog).run_time_ns > 0);
    close(stats);
    run(prog, 3);
    printf("%lld runs\n", info(prog).run_cnt);
}

static void places(void) {
    int map = create(BPF_MAP_TYPE_DEVMAP, 4, 4, 1, 0), first = 0, there = 0, taken = 0;
    for (int index = 1; index < 100; index++) {
        char name[IF_NAMESIZE];
        if (if_indextoname(index, name)) {
            there++;
            taken += !elem(BPF_MAP_UPDATE_ELEM, map, &first, &index, 0);
        }
    }
    printf("interfaces not taken: %d\n", there - taken);
    query("programs of a namespace", open("/proc/self/ns/net", O_RDONLY), 17);
    query("programs of a file", open("/dev/null", O_RDONLY), 17);
    query("programs of an interface", 1, 46);
    for (const char **path = (const char *[]){"/sys/fs/bpf/missing", "/sys/fs/bpf/miss.ing", "/sys/fs/bpf/.missing", 0}; *path; path++) {
        union bpf_attr attr = {};
        attr.pathname = (long)*path;
        say(*path, bpf(BPF_OBJ_GET, &attr));
    }
}

static void samples(int backward) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    struct perf_event_attr event = {.size = sizeof event, .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_BPF_OUTPUT};
    event.sample_type = PERF_SAMPLE_RAW | PERF_SAMPLE_TIME;
    event.write_backward = backward;
    int fd = syscall(SYS_perf_event_open, &event, -1, 0, -1, 0), key = 0;
    int map = create(BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 1, 0);
    elem(BPF_MAP_UPDATE_ELEM, map, &key, &fd, 0);
    int protection = backward ? PROT_READ : PROT_READ | PROT_WRITE;
    struct perf_event_mmap_page *page = mmap(0, 8192, protection, MAP_SHARED, fd, 0);
    struct bpf_insn insns[] = {
        {.code = 0x7a, .dst_reg = 10, .off = -8, .imm = 99},
        {.code = 0x18, .dst_reg = 2, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map}, {},
        {.code = 0xb7, .dst_reg = 3},
        {.code = 0xbf, .dst_reg = 4, .src_reg = 10}, {.code = 0x07, .dst_reg = 4, .imm = -8},
        {.code = 0xb7, .dst_reg = 5, .imm = 8},
        {.code = 0x85, .imm = BPF_FUNC_perf_event_output}, {.code = 0x95}};
    int prog = load(BPF_PROG_TYPE_SOCKET_FILTER, insns, sizeof insns / sizeof *insns);
    printf("3 samples: %d, head %lld\n", run(prog, 3), page->data_head);
    struct perf_event_header *record = (void *)((char *)page + 4096 + (page->data_head - (backward ? 0 : 32)) % 4096);
    long *time = (long *)(record + 1);
    printf("%d bytes of type %d at a time: %d, %d bytes: %ld\n", record->size, record->type, *time > 0, *(int *)(time + 1), *(long *)((int *)(time + 1) + 1));
    say("pause", ioctl(fd, PERF_EVENT_IOC_PAUSE_OUTPUT, 1));
    printf("none: %d, head %lld\n", (int)run(prog, 3), page->data_head);
}

int main(void) {
    time_and_counts();
    places();
    samples(0);
    samples(1);
    return 3;
}
