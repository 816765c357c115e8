/* Maps in every kind of task: made by vfork(2), posix_spawn(3), clone(2) and clone3(2), with files shared or not, behind exec(2),
 * in a storm of all that; and given by pidfd_getfd(2). */
#define _GNU_SOURCE
#include "bpf.h"
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;
static int counters, before;
static char *again[4];

static void add(int fd, int key) {
    long value = 0;
    if (elem(BPF_MAP_LOOKUP_ELEM, fd, &key, &value, 0))
        _exit(9);
    value++;
    if (elem(BPF_MAP_UPDATE_ELEM, fd, &key, &value, 0))
        _exit(9);
}

static long count(int key) {
    long value = -1;
    elem(BPF_MAP_LOOKUP_ELEM, counters, &key, &value, 0);
    return value;
}

static int ended(pid_t child) {
    int status = -1;
    while (waitpid(child, &status, __WALL) < 0 && errno == EINTR)
        ;
    return status;
}

static void said(const char *what, pid_t child) {
    int status = ended(child);
    printf("%s: %d, %ld and %ld\n", what, status, count(0), count(3) - before);
}

/* Makes a map in a table of files that it shares with its maker. */
static int maker(void *made) {
    *(volatile int *)made = create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0);
    return 0;
}

static void *storm(void *number) {
    for (int i = 0; i < 30; i++) {
        pid_t child;
        switch (i % 3) {
        case 0:
            child = fork();
            if (!child) {
                add(counters, 4 + (long)number);
                _exit(0);
            }
            break;
        case 1:
            child = vfork();
            if (!child) {
                execv("/proc/self/exe", again);
                _exit(8);
            }
            break;
        default:
            if (posix_spawn(&child, "/proc/self/exe", 0, 0, again, environ))
                exit(7);
        }
        if (ended(child))
            exit(6);
    }
    return 0;
}

static void *become(void *none) {
    usleep(1000);
    execv("/proc/self/exe", again);
    return none;
}

static void caught(int signal) { (void)signal; }

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    if (argc > 2) {
        counters = atoi(argv[2]);
        add(counters, 3);
        return 0;
    }
    counters = create(BPF_MAP_TYPE_ARRAY, 4, 8, 16, 0);
    fcntl(counters, F_SETFD, 0);
    char fd[16];
    snprintf(fd, sizeof fd, "%d", counters);
    again[0] = "tasks";
    again[1] = "child";
    again[2] = fd;
    pid_t child = vfork();
    if (!child) {
        add(counters, 0);
        execv("/proc/self/exe", again);
        _exit(8);
    }
    said("vfork", child);
    posix_spawn(&child, "/proc/self/exe", 0, 0, again, environ);
    said("posix_spawn", child);
    struct clone_args args = {.exit_signal = SIGCHLD};
    child = syscall(SYS_clone3, &args, sizeof args);
    if (!child) {
        add(counters, 0);
        _exit(0);
    }
    said("clone3", child);
    /* A table of files that two processes share. */
    int *made = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *stack = malloc(1 << 16);
    child = clone(maker, stack + (1 << 16), CLONE_FILES | SIGCHLD, made);
    printf("clone with files: %d\n", ended(child));
    int key = 0;
    long value = 7;
    say("update of its map", elem(BPF_MAP_UPDATE_ELEM, *made, &key, &value, 0));
    close(*made);
    child = clone(maker, stack + (1 << 16), CLONE_VM | SIGCHLD, made);
    printf("clone with memory: %d\n", ended(child));
    say("update of its map", elem(BPF_MAP_UPDATE_ELEM, *made, &key, &value, 0));
    /* A thread that has left its table of files. */
    child = fork();
    if (!child) {
        unshare(CLONE_FILES);
        close(counters);
        say("update of what is closed", elem(BPF_MAP_UPDATE_ELEM, counters, &key, &value, 0));
        _exit(0);
    }
    ended(child);
    /* Taken from another process. */
    int ready[2], taken[2];
    if (pipe(ready) || pipe(taken))
        return 1;
    child = fork();
    if (!child) {
        int own = create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0);
        value = 99;
        elem(BPF_MAP_UPDATE_ELEM, own, &key, &value, 0);
        char byte;
        if (write(ready[1], &own, sizeof own) < 0 || read(taken[0], &byte, 1) < 0)
            _exit(1);
        _exit(0);
    }
    int own, pidfd = syscall(SYS_pidfd_open, child, 0);
    if (read(ready[0], &own, sizeof own) < 0)
        return 1;
    int got = syscall(SYS_pidfd_getfd, pidfd, own, 0);
    if (write(taken[1], "x", 1) < 0)
        return 1;
    ended(child);
    say("lookup of what was taken", elem(BPF_MAP_LOOKUP_ELEM, got, &key, &value, 0));
    printf("value %ld\n", value);

    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    struct itimerval often = {{0, 3000}, {0, 3000}};
    setitimer(ITIMER_REAL, &often, 0);
    pthread_t threads[3];
    for (long t = 0; t < 3; t++)
        pthread_create(&threads[t], 0, storm, (void *)t);
    for (int t = 0; t < 3; t++)
        pthread_join(threads[t], 0);
    printf("storm: %ld %ld %ld\n", count(4), count(5), count(6));
    before = count(3);
    printf("programs: %s\n", before >= 22 && before <= 62 ? "all ran" : "some did not run");
    /* exec(2) of a thread ends all others. */
    child = fork();
    if (!child) {
        pthread_t thread;
        pthread_create(&thread, 0, become, 0);
        for (;;)
            add(counters, 0);
    }
    int status = ended(child);
    printf("exec of a thread: %d, %ld\n", status, count(3) - before);
    return 0;
}
