/* Sockets and processes in maps: their numbers, what becomes of them, and when they leave. */
#include "bpf.h"
#include <arpa/inet.h>
#include <linux/btf.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int tcp(void) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    return fd;
}

static int put(int map, int key, int fd, int flags) {
    long value = fd;
    return elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, flags);
}

/* Whether a map shows a socket by its own number. */
static void look(const char *what, int map, int key, int fd) {
    unsigned long own = 0, shown = 0;
    socklen_t len = sizeof own;
    int ret = elem(BPF_MAP_LOOKUP_ELEM, map, &key, &shown, 0), number = errno;
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &own, &len);
    errno = number;
    say(what, ret < 0 ? ret : shown == own);
}

/* A map with an int for each socket or process. */
static int storage(int type) {
    struct {
        struct btf_header header;
        struct btf_type type;
        unsigned bits;
        char names[5];
    } __attribute__((packed)) btf = {
        {BTF_MAGIC, 1, 0, sizeof(struct btf_header), 0, 16, 16, 5}, {1, BTF_KIND_INT << 24, {4}}, BTF_INT_SIGNED << 24 | 32, "\0int"};
    union bpf_attr attr = {.btf = (long)&btf, .btf_size = sizeof btf};
    int types = bpf(BPF_BTF_LOAD, &attr);
    attr = (union bpf_attr){.map_type = type, .key_size = 4, .value_size = 4};
    attr.map_flags = BPF_F_NO_PREALLOC;
    attr.btf_fd = types;
    attr.btf_key_type_id = attr.btf_value_type_id = 1;
    return bpf(BPF_MAP_CREATE, &attr);
}

int main(void) {
    int array = create(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 4, 8, 4, 0);
    int sockmap = create(BPF_MAP_TYPE_SOCKMAP, 4, 8, 4, 0);
    int ints = storage(BPF_MAP_TYPE_SK_STORAGE);
    struct sockaddr_in addr = {AF_INET};
    socklen_t len = sizeof addr;
    int listener = tcp();
    say("not bound", put(array, 0, listener, 0));
    bind(listener, (void *)&addr, len);
    say("bound", put(array, 0, listener, 0));
    listen(listener, 4);
    say("listens", put(array, 0, listener, BPF_NOEXIST));
    look("its number", array, 0, listener);
    say("once more", put(array, 1, listener, 0));
    say("in a socket map too", put(sockmap, 0, listener, 0));

    int netlink = socket(AF_NETLINK, SOCK_RAW, 0);
    say("netlink in an array", put(array, 1, netlink, 0));
    say("netlink in a socket map", put(sockmap, 1, netlink, 0));

    int client = tcp(), key = client, value = 7;
    say("not connected", put(sockmap, 0, client, 0));
    say("a value for it", elem(BPF_MAP_UPDATE_ELEM, ints, &key, &value, 0));
    getsockname(listener, (void *)&addr, &len);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect(client, (void *)&addr, len);
    say("connected", put(sockmap, 0, client, 0));
    look("its number", sockmap, 0, client);
    value = 0;
    elem(BPF_MAP_LOOKUP_ELEM, ints, &key, &value, 0);
    printf("its value: %d\n", value);

    int copy = dup(listener);
    close(listener);
    look("one of two closed", array, 0, copy);
    int ends[2];
    pipe(ends);
    fflush(stdout);
    if (!fork()) {
        close(copy);
        close(ends[1]);
        read(ends[0], &key, 4);
        _exit(0);
    }
    close(ends[0]);
    close(client);
    long number;
    say("another process has it", elem(BPF_MAP_LOOKUP_ELEM, sockmap, (key = 0, &key), &number, 0));
    close(ends[1]);
    wait(0);
    say("it has ended", elem(BPF_MAP_LOOKUP_ELEM, sockmap, &key, &number, 0));
    look("the listener", array, 0, copy);
    close(copy);
    look("closed", array, 0, 0);

    int tasks = storage(BPF_MAP_TYPE_TASK_STORAGE), child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    key = syscall(SYS_pidfd_open, child, 0);
    say("a value for a process", elem(BPF_MAP_UPDATE_ELEM, tasks, &key, &value, 0));
    kill(child, SIGKILL);
    wait(0);
    say("it has ended", elem(BPF_MAP_LOOKUP_ELEM, tasks, &key, &value, 0));
    say("a value for it", elem(BPF_MAP_UPDATE_ELEM, tasks, &key, &value, 0));
    say("and none", elem(BPF_MAP_DELETE_ELEM, tasks, &key, 0, 0));
    return 0;
}
