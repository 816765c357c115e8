/* Processes and threads that share maps: by fork(2), by a socket, by id; and what is left when they are gone. */
#include "bpf.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { PROCESSES = 4, THREADS = 4, ROUNDS = 100 };
static int shared;

static void *count(void *first) {
    for (long i = 0; i < ROUNDS; i++) {
        int key = (long)first * ROUNDS + i;
        long value = key;
        if (elem(BPF_MAP_UPDATE_ELEM, shared, &key, &value, BPF_NOEXIST))
            exit(9);
    }
    return 0;
}

static void send_fd(int socket, int fd) {
    char room[CMSG_SPACE(sizeof fd)] = {}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    sendmsg(socket, &message, 0);
}

static int receive_fd(int socket) {
    char room[CMSG_SPACE(sizeof(int))], byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int fd = -1;
    recvmsg(socket, &message, 0);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static int maps(void) {
    union bpf_attr attr = {};
    int count = 0;
    while (!bpf(BPF_MAP_GET_NEXT_ID, &attr)) {
        attr.start_id = attr.next_id;
        count++;
    }
    return count;
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    int before = maps();
    shared = create(BPF_MAP_TYPE_HASH, 4, 8, PROCESSES * THREADS * ROUNDS, 0);
    for (long p = 0; p < PROCESSES; p++) {
        if (fork())
            continue;
        pthread_t threads[THREADS];
        for (long t = 0; t < THREADS; t++)
            pthread_create(&threads[t], 0, count, (void *)(p * THREADS + t));
        for (int t = 0; t < THREADS; t++)
            pthread_join(threads[t], 0);
        exit(0);
    }
    int status, bad = 0, found = 0;
    while (wait(&status) > 0)
        bad += status != 0;
    for (int key = 0; key < PROCESSES * THREADS * ROUNDS; key++) {
        long value = -1;
        found += !elem(BPF_MAP_LOOKUP_ELEM, shared, &key, &value, 0) && value == key;
    }
    printf("%d processes failed, %d of %d found\n", bad, found, PROCESSES * THREADS * ROUNDS);

    /* A map that only lives in a socket for a moment. */
    int ends[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    if (!fork()) {
        int map = create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0), key = 0;
        long value = 42;
        elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, 0);
        send_fd(ends[1], map);
        exit(0);
    }
    wait(&status);
    printf("%d maps\n", maps() - before);
    int sent = receive_fd(ends[0]), key = 0;
    long value = 0;
    say("lookup in a map from a socket", elem(BPF_MAP_LOOKUP_ELEM, sent, &key, &value, 0));
    printf("value %ld, %d maps\n", value, maps() - before);
    close(sent);
    printf("%d maps\n", maps() - before);
    /* A child that is killed leaves nothing. */
    pid_t child = fork();
    if (!child) {
        for (;;)
            create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0);
    }
    usleep(20000);
    kill(child, 9);
    wait(&status);
    printf("%d maps\n", maps() - before);
    return 0;
}
