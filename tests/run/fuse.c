/* A program that serves a file system to itself, and makes calls that are looked at on both sides. */
#define _GNU_SOURCE
#include "bpf.h"
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static int device;

static void reply(struct fuse_in_header *in, int error, void *data, int size) {
    char out[4096];
    struct fuse_out_header header = {sizeof header + size, error, in->unique};
    memcpy(out, &header, sizeof header);
    memcpy(out + sizeof header, data, size);
    if (write(device, out, header.len) < 0)
        exit(5);
}

static struct fuse_attr attr_of(long node) {
    struct fuse_attr attr = {.ino = node, .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = 1, .size = 4096};
    return attr;
}

static void *serve(void *none) {
    char room[1 << 17];
    while (read(device, room, sizeof room) > 0) {
        struct fuse_in_header *in = (void *)room;
        /* A call that waits for mapemu, before anything is answered. */
        close(open("/proc/self/status", O_RDONLY));
        struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
        struct fuse_attr_out attr = {.attr = attr_of(in->nodeid)};
        struct fuse_entry_out entry = {.nodeid = 2, .attr = attr_of(2)};
        struct fuse_open_out opened = {.fh = 1};
        struct fuse_statfs_out statfs = {};
        switch (in->opcode) {
        case FUSE_INIT: reply(in, 0, &init, sizeof init); break;
        case FUSE_GETATTR: reply(in, 0, &attr, sizeof attr); break;
        case FUSE_LOOKUP: reply(in, 0, &entry, sizeof entry); break;
        case FUSE_OPEN:
        case FUSE_OPENDIR: reply(in, 0, &opened, sizeof opened); break;
        case FUSE_STATFS: reply(in, 0, &statfs, sizeof statfs); break;
        case FUSE_FORGET: break;
        default: reply(in, -ENOSYS, 0, 0);
        }
    }
    return none;
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    char options[64];
    device = open("/dev/fuse", O_RDWR);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
    if (device < 0 || mkdir("mounted", 0755) || mount("fuse", "mounted", "fuse", 0, options)) {
        perror("fuse");
        return 77;
    }
    pthread_t server;
    pthread_create(&server, 0, serve, 0);
    alarm(10);
    int map = create(BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0), key = 0;
    int file = open("mounted/file", O_RDWR), dir = open("mounted", O_RDONLY);
    struct pollfd both[] = {{file, POLLIN, 0}, {map, 0, 0}};
    struct epoll_event event = {};
    struct statfs statfs_of;
    say("lookup in a file", elem(BPF_MAP_LOOKUP_ELEM, file, &key, &key, 0));
    say("lookup in a directory", elem(BPF_MAP_LOOKUP_ELEM, dir, &key, &key, 0));
    say("poll", poll(both, 2, 0));
    say("epoll", epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, file, &event));
    say("mmap", mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED ? -1 : 0);
    say("statfs", statfs("mounted/file", &statfs_of));
    say("statfs of the directory", statfs("mounted", &statfs_of));
    say("fstatfs", fstatfs(file, &statfs_of));
    say("mkdir", mkdir("mounted/dir", 0700));
    say("access", access("mounted/file", R_OK));
    say("readlink", readlink("mounted/file", options, 10));
    say("openat", openat(dir, "file", O_RDONLY) < 0 ? -1 : 0);
    /* Nobody would answer what is asked at the end. */
    umount2("mounted", MNT_FORCE);
    _exit(0);
}
