/* What is refused, or is a limit: the argument says which. */
#define _GNU_SOURCE
#include "bpf.h"
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
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
        int prog = load(BPF_PROG_TYPE_RAW_TRACEPOINT, insns, 2);
        printf("loaded: %d\n", prog >= 0);
        attr.raw_tracepoint.name = (long)"sys_enter";
        attr.raw_tracepoint.prog_fd = prog;
        say("attach", bpf(BPF_RAW_TRACEPOINT_OPEN, &attr));
    } else if (!strcmp(argv[1], "socket")) {
        struct bpf_insn insns[] = {{.code = 0xb7}, {.code = 0x95}};
        int filter = load(BPF_PROG_TYPE_SOCKET_FILTER, insns, 2), other = load(BPF_PROG_TYPE_SCHED_CLS, insns, 2);
        int udp = socket(AF_INET, SOCK_DGRAM, 0);
        say("another program", setsockopt(udp, SOL_SOCKET, SO_ATTACH_BPF, &other, sizeof other));
        say("no socket", setsockopt(filter, SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof filter));
        say("no length", setsockopt(udp, SOL_SOCKET, SO_ATTACH_BPF, &filter, 0));
        say("filter", setsockopt(udp, SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof filter));
    } else if (!strcmp(argv[1], "memlock")) {
        /* A limit is inherited, and passes exec(2). */
        struct rlimit limit = {12345, 65536}, now = {};
        if (argc > 2) {
            getrlimit(RLIMIT_MEMLOCK, &now);
            printf("in another program: %ld %ld\n", (long)now.rlim_cur, (long)now.rlim_max);
            return 0;
        }
        say("set", setrlimit(RLIMIT_MEMLOCK, &limit));
        if (!fork()) {
            if (!fork()) {
                getrlimit(RLIMIT_MEMLOCK, &now);
                printf("in a child's child: %ld %ld\n", (long)now.rlim_cur, (long)now.rlim_max);
                limit.rlim_cur = 0;
                say("set there", prlimit(0, RLIMIT_MEMLOCK, &limit, &now));
                printf("it was %ld\n", (long)now.rlim_cur);
                return 0;
            }
            wait(0);
            execl(argv[0], argv[0], "memlock", "again", NULL);
        }
        wait(0);
        say("get", syscall(SYS_getrlimit, RLIMIT_MEMLOCK, &now));
        printf("in the parent: %ld %ld\n", (long)now.rlim_cur, (long)now.rlim_max);
        limit.rlim_cur = 65537;
        say("soft above hard", setrlimit(RLIMIT_MEMLOCK, &limit));
    } else if (!strcmp(argv[1], "reopen")) {
        /* A map has no name that it could be opened by. */
        int fd = create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE), key = 0;
        long value = 5;
        char paths[4][32];
        snprintf(paths[0], 32, "/proc/self/fd/%d", fd);
        snprintf(paths[1], 32, "/dev/fd/%d", fd);
        snprintf(paths[2], 32, "/proc/%d/fd/%d", getpid(), fd);
        snprintf(paths[3], 32, "%d", fd);
        int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
        for (int i = 0; i < 4; i++) {
            say("open", openat(dir, paths[i], O_RDWR));
            int path = openat(dir, paths[i], O_PATH);
            say("O_PATH", path < 0 ? -1 : 0);
            close(path);
        }
        say("the root", open("/sys/fs/bpf", O_PATH | O_DIRECTORY) < 0 ? -1 : 0);
        say("its attributes", listxattr("/sys/fs/bpf", 0, 0));
        struct stat status[2];
        struct statfs systems[2];
        say("status", fstatat(fd, "", &status[0], AT_EMPTY_PATH) | stat(paths[0], &status[1]));
        say("systems", fstatfs(fd, &systems[0]) | statfs(paths[0], &systems[1]));
        for (int i = 0; i < 2; i++)
            printf("mode %o, %ld bytes\n", status[i].st_mode, (long)status[i].st_size);
        for (int i = 0; i < 2; i++)
            printf("on %lx, %ld, flags %lx\n", (long)systems[i].f_type, (long)systems[i].f_bsize, (long)systems[i].f_flags);
        say("lookup", elem(BPF_MAP_LOOKUP_ELEM, fd, &key, &value, 0));
        struct pollfd none = {dir, POLLIN, 0};
        say("poll", poll(&none, 1, 0));
        printf("value %ld\n", value);
    } else if (!strcmp(argv[1], "perf")) {
        /* Events that are not for BPF. */
        struct perf_event_attr attr = {.size = sizeof attr, .exclude_kernel = 1, .exclude_hv = 1};
        for (attr.type = 1000; attr.type < 1002; attr.type++)
            say("unknown", syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
        attr.type = PERF_TYPE_SOFTWARE;
        attr.config = PERF_COUNT_SW_DUMMY;
        attr.exclude_kernel = 1;
        say("dummy", syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) < 0 ? -1 : 0);
    } else if (!strcmp(argv[1], "mapped")) {
        /* What no mapping may write to is not made writable. */
        int maps[] = {create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE | BPF_F_RDONLY_PROG),
                      create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE)};
        union bpf_attr attr = {.map_fd = maps[1]};
        say("freeze", bpf(BPF_MAP_FREEZE, &attr));
        for (int i = 0; i < 2; i++) {
            void *at = mmap(0, 4096, PROT_READ, MAP_SHARED, maps[i], 0);
            say("mprotect", mprotect(at, 4096, PROT_READ | PROT_WRITE));
        }
        int kinds[] = {0, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_SHARED_VALIDATE | MAP_SYNC};
        for (int i = 0; i < 4; i++)
            say("another kind", mmap(0, 4096, PROT_READ, kinds[i], maps[1], 0) == MAP_FAILED ? -1 : 0);
        say("far away", mmap(0, 4096, PROT_READ, MAP_SHARED, maps[1], -4096) == MAP_FAILED ? -1 : 0);
    } else if (!strcmp(argv[1], "many-polled")) {
        /* A map, and files that mapemu has to take, until it has no room for them. */
        struct pollfd all[64] = {{create(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0), POLLIN, 0}};
        int pipes[2], count = 1, closed = 0;
        pipe(pipes);
        while ((all[count].fd = dup(pipes[0])) >= 0)
            all[count++].events = POLLIN;
        say("poll", poll(all, count, 0));
        for (int i = 0; i < count; i++)
            closed += all[i].revents & POLLNVAL;
        printf("%d closed\n", closed);
    } else if (!strcmp(argv[1], "forever")) {
        int map = create(BPF_MAP_TYPE_HASH, 4, 8, 100, 0);
        struct pollfd ring = {create(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0), POLLIN, 0};
        int epoll = epoll_create1(0);
        for (int key = 0;; key = (key + 1) % 100) {
            long value = key;
            struct epoll_event event = {.events = EPOLLIN};
            epoll_ctl(epoll, key % 2 ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, ring.fd, &event);
            epoll_wait(epoll, &event, 1, 0);
            poll(&ring, 1, key % 8 ? 0 : 1);
            mkdir("/sys/fs/bpf/dir", 0700);
            rmdir("/sys/fs/bpf/dir");
            elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, 0);
            elem(BPF_MAP_DELETE_ELEM, map, &key, 0, 0);
            close(create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
        }
    }
    return 0;
}
