/* poll(2), select(2) and epoll(7) of maps and perf events: when they wait, and what they tell. */
#define _GNU_SOURCE
#include "bpf.h"
#include <linux/perf_event.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static int ring, output, quiet, events, sample;
static volatile unsigned long *consumer, *producer;

/* A program that writes 8 bytes to a map: of a ring buffer with those flags, of perf events to that of CPU 0. */
static int writer(int map, int flags, int perf) {
    struct bpf_insn insns[] = {
        {0x7a, 10, 0, -8, 7},                 /* the 8 bytes */
        {0xbf, 2, 10}, {0x07, 2, 0, 0, -8},   /* where they are */
        {0x18, 1, BPF_PSEUDO_MAP_FD, 0, map}, {},
        {0xb7, 3, 0, 0, 8}, {0xb7, 4, 0, 0, flags},
        {0x85, 0, 0, 0, 130},
        {0xb7, 0}, {0x95},
    };
    struct bpf_insn of_perf[] = {
        {0x7a, 10, 0, -8, 7},
        {0xbf, 4, 10}, {0x07, 4, 0, 0, -8},
        {0x18, 2, BPF_PSEUDO_MAP_FD, 0, map}, {},
        {0xb7, 3, 0, 0, 0}, {0xb7, 5, 0, 0, 8},
        {0x85, 0, 0, 0, 25},
        {0xb7, 0}, {0x95},
    };
    return load(BPF_PROG_TYPE_SCHED_CLS, perf ? of_perf : insns, 10);
}

static void consume(void) { *consumer = *producer; }

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void *later(void *prog) {
    usleep(150000);
    run((intptr_t)prog, 1);
    return 0;
}

#define LATER(prog, call) ({ \
    pthread_t thread; \
    pthread_create(&thread, 0, later, (void *)(intptr_t)(prog)); \
    long start = now(), ret = (call); \
    int number = errno; \
    printf(now() - start >= 100 ? "waited, " : "at once, "); \
    pthread_join(thread, 0); \
    errno = number; \
    ret; })

#define TIMED(call) ({ \
    long start = now(), ret = (call); \
    int number = errno; \
    printf(now() - start >= 100 ? "waited, " : "at once, "); \
    errno = number; \
    ret; })

static void polled(int fd, short bits, int time) {
    struct pollfd one = {fd, bits, 99};
    say("poll", TIMED(poll(&one, 1, time)));
    printf("  revents %x\n", one.revents);
}

static void waited(const char *what, int epoll, int time) {
    struct epoll_event event[4] = {};
    printf("%s: ", what);
    int found = TIMED(epoll_wait(epoll, event, 4, time));
    say("epoll_wait", found);
    for (int i = 0; i < found; i++)
        printf("  events %x data %lx\n", event[i].events, (long)event[i].data.u64);
}

static void control(const char *what, int epoll, int op, int fd, int bits) {
    struct epoll_event event = {.events = bits, .data.u64 = 0x1234567890};
    say(what, epoll_ctl(epoll, op, fd, &event));
}

static void caught(int signal) { (void)signal; printf("signal, "); }

static void on_alarm(int flags) {
    struct sigaction action = {.sa_handler = caught, .sa_flags = flags};
    sigaction(SIGALRM, &action, 0);
    struct itimerval soon = {.it_value.tv_usec = 150000};
    setitimer(ITIMER_REAL, &soon, 0);
}

static struct pollfd left;

static void *executes(void *nothing) {
    usleep(150000);
    execl("/proc/self/exe", "waits", "executed", nothing);
    return 0;
}

/* The memory of a program that took the place of one that waited is its own. */
static void executed(void) {
    left.revents = 99;
    usleep(400000);
    printf("after exec: %d\n", left.revents);
}

static void polls(void) {
    int pipes[2];
    if (pipe(pipes))
        exit(1);
    polled(ring, POLLIN, 0);
    polled(ring, POLLIN, 150);
    struct pollfd one = {ring, POLLIN, 0};
    say("poll until it is written", LATER(output, poll(&one, 1, -1)));
    printf("  revents %x\n", one.revents);
    polled(ring, POLLIN | POLLOUT | POLLRDNORM, -1);
    consume();
    say("poll until it is written quietly", LATER(quiet, poll(&one, 1, 250)));
    polled(ring, POLLIN, -1);
    consume();
    struct pollfd four[] = {{ring, POLLIN, 0}, {-1, POLLIN, 9}, {pipes[0], POLLIN, 0}, {999, POLLIN, 0}};
    say("poll of several", poll(four, 4, -1));
    printf("  revents %x %x %x %x\n", four[0].revents, four[1].revents, four[2].revents, four[3].revents);
    if (!fork()) {
        usleep(150000);
        exit(write(pipes[1], "x", 1) != 1);
    }
    say("poll until a pipe is written", TIMED(poll(four, 3, -1)));
    printf("  revents %x %x %x\n", four[0].revents, four[1].revents, four[2].revents);
    wait(0);
    struct timespec time = {0, 150000000};
    say("ppoll", TIMED(ppoll(&one, 1, &time, 0)));
    say("ppoll until it is written", LATER(output, ppoll(&one, 1, 0, 0)));
    consume();
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(ring, &in);
    FD_SET(pipes[1], &out);
    say("select", select(pipes[1] + 1, &in, &out, 0, 0));
    printf("  %d %d\n", !!FD_ISSET(ring, &in), !!FD_ISSET(pipes[1], &out));
    FD_ZERO(&in);
    FD_SET(ring, &in);
    struct timeval short_time = {0, 150000};
    say("select in vain", TIMED(select(ring + 1, &in, 0, 0, &short_time)));
    printf("  %d, %ld left\n", !!FD_ISSET(ring, &in), (long)short_time.tv_usec);
    FD_SET(ring, &in);
    say("select until it is written", LATER(output, select(ring + 1, &in, 0, 0, 0)));
    printf("  %d\n", !!FD_ISSET(ring, &in));
    consume();
    FD_SET(ring, &in);
    say("pselect until it is written", LATER(output, pselect(ring + 1, &in, 0, 0, 0, 0)));
    consume();
    FD_SET(60, &in);
    say("select of a closed fd", select(61, &in, 0, 0, 0));
    on_alarm(0);
    one.revents = 99;
    say("poll and a signal", TIMED(poll(&one, 1, 2000)));
    printf("  revents %x\n", one.revents);
    on_alarm(SA_RESTART);
    say("poll and a signal that restarts", TIMED(poll(&one, 1, 2000)));
    FD_ZERO(&in);
    FD_SET(ring, &in);
    on_alarm(SA_RESTART);
    say("select and a signal", TIMED(select(ring + 1, &in, 0, 0, 0)));
    int hash = create(BPF_MAP_TYPE_HASH, 4, 4, 1, 0);
    polled(hash, POLLIN, 100);
    polled(output, POLLIN | POLLOUT, 100);
    close(pipes[0]);
    close(pipes[1]);
    close(hash);
    say("poll of an array at no address", syscall(SYS_ppoll, 8L, 1, 0, 0, 0));
    struct timespec none = {};
    say("poll of a number with more bits", syscall(SYS_ppoll, &one, 1 | 1L << 32, &none, 0, 8));
    if (!fork()) {
        pthread_t thread;
        pthread_create(&thread, 0, executes, 0);
        left = one;
        exit(poll(&left, 1, 300));
    }
    wait(0);
}

static void epolls(void) {
    int epoll = epoll_create1(0);
    control("add", epoll, EPOLL_CTL_ADD, ring, EPOLLIN);
    control("add again", epoll, EPOLL_CTL_ADD, ring, EPOLLIN);
    waited("empty", epoll, 150);
    run(output, 1);
    waited("written", epoll, -1);
    waited("level-triggered", epoll, -1);
    consume();
    waited("consumed", epoll, 150);
    printf("until it is written: ");
    struct epoll_event event;
    say("epoll_wait", LATER(output, epoll_wait(epoll, &event, 1, -1)));
    consume();
    run(quiet, 1);
    waited("written quietly", epoll, 150);
    control("modify", epoll, EPOLL_CTL_MOD, ring, EPOLLIN | EPOLLET);
    waited("modified", epoll, 0);
    waited("edge-triggered", epoll, 150);
    run(output, 1);
    waited("next edge", epoll, 0);
    run(output, 1);
    consume();
    waited("edge of what is consumed", epoll, 150);
    run(quiet, 1);
    waited("and written quietly", epoll, 150);
    control("modify", epoll, EPOLL_CTL_MOD, ring, EPOLLIN | EPOLLONESHOT);
    waited("one shot", epoll, 0);
    run(output, 1);
    waited("no second shot", epoll, 150);
    control("modify", epoll, EPOLL_CTL_MOD, ring, EPOLLIN | EPOLLOUT);
    waited("modified", epoll, 0);
    int again = dup(epoll);
    pid_t child = fork();
    if (!child) {
        waited("in a child", epoll, 0);
        control("remove in a child", again, EPOLL_CTL_DEL, ring, 0);
        exit(0);
    }
    waitpid(child, 0, 0);
    waited("removed", epoll, 150);
    control("remove again", epoll, EPOLL_CTL_DEL, ring, 0);
    control("add what is ready", epoll, EPOLL_CTL_ADD, ring, EPOLLIN | EPOLLET);
    struct pollfd nested = {epoll, POLLIN, 0};
    say("poll of the epoll instance", poll(&nested, 1, 0));
    int twice = dup(ring);
    control("add a duplicate", epoll, EPOLL_CTL_ADD, twice, EPOLLIN);
    waited("both", epoll, 0);
    consume();
    say("poll of the epoll instance", poll(&nested, 1, 0));
    close(epoll);
    close(again);
    epoll = epoll_create1(0);
    control("add to a new one", epoll, EPOLL_CTL_ADD, ring, EPOLLIN);
    control("add nothing", epoll, EPOLL_CTL_ADD, 999, EPOLLIN);
    control("add to what is none", ring, EPOLL_CTL_ADD, twice, EPOLLIN);
    control("bad operation", epoll, 77, ring, EPOLLIN);
    say("no event", epoll_ctl(epoll, EPOLL_CTL_ADD, twice, 0));
    control("add a program", epoll, EPOLL_CTL_ADD, output, EPOLLIN);
    on_alarm(SA_RESTART);
    waited("signal", epoll, 2000);
    control("remove the ring", epoll, EPOLL_CTL_DEL, ring, 0);
    int hash = create(BPF_MAP_TYPE_HASH, 4, 4, 1, 0);
    control("add a hash", epoll, EPOLL_CTL_ADD, hash, EPOLLIN | EPOLLOUT);
    waited("a hash", epoll, 0);
    control("modify it", epoll, EPOLL_CTL_MOD, hash, EPOLLET);
    waited("edge-triggered", epoll, 0);
    waited("no second edge", epoll, 0);
    close(hash);
    /* Each instance is told for itself. */
    int other = epoll_create1(0);
    consume();
    control("add for normal data", epoll, EPOLL_CTL_ADD, ring, EPOLLRDNORM);
    run(quiet, 1);
    control("exclusive", other, EPOLL_CTL_MOD, ring, EPOLLIN | EPOLLEXCLUSIVE);
    control("add to another", other, EPOLL_CTL_ADD, ring, EPOLLIN | EPOLLET);
    waited("the first", epoll, 0);
    waited("the other", other, 0);
    control("add again", other, EPOLL_CTL_ADD, ring, EPOLLIN);
    waited("no edge", other, 0);
    consume();
    run(output, 1);
    waited("the first", epoll, 0);
    control("remove", other, EPOLL_CTL_DEL, ring, 0);
    control("remove", other, EPOLL_CTL_DEL, ring, 0);
    close(other);
    consume();
    close(twice);
    close(epoll);
}

static void perfs(void) {
    polled(sample, POLLIN, 150);
    run(events, 1);
    polled(sample, POLLIN, 150);
    polled(sample, POLLIN, 150);
    struct pollfd one = {sample, POLLIN, 0};
    say("poll until it is written", LATER(events, poll(&one, 1, -1)));
    int epoll = epoll_create1(0);
    run(events, 1);
    control("add what is ready", epoll, EPOLL_CTL_ADD, sample, EPOLLIN);
    waited("added", epoll, 150);
    run(events, 1);
    waited("written", epoll, 150);
    waited("told once", epoll, 150);
    run(events, 1);
    control("modify what is ready", epoll, EPOLL_CTL_MOD, sample, EPOLLIN);
    waited("modified", epoll, 150);
    printf("until it is written: ");
    struct epoll_event event;
    say("epoll_wait", LATER(events, epoll_wait(epoll, &event, 1, -1)));
    close(epoll);
}

int main(int argc, char **argv) {
    (void)argv;
    setvbuf(stdout, 0, _IONBF, 0);
    if (argc > 1) {
        executed();
        return 0;
    }
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    ring = create(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0);
    consumer = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
    producer = mmap(0, 4096, PROT_READ, MAP_SHARED, ring, 4096);
    output = writer(ring, 0, 0);
    quiet = writer(ring, BPF_RB_NO_WAKEUP, 0);
    int array = create(BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 1, 0), zero = 0;
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_BPF_OUTPUT,
                                   .sample_type = PERF_SAMPLE_RAW, .sample_period = 1, .wakeup_events = 1};
    sample = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 8);
    mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, sample, 0);
    elem(BPF_MAP_UPDATE_ELEM, array, &zero, &sample, 0);
    events = writer(array, 0, 1);
    polls();
    epolls();
    perfs();
    return 0;
}
