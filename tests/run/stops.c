/* Signals without a handler, and stops, while poll(2) or select(2) waits for a map. */
#define _GNU_SOURCE
#include "bpf.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static int ring;

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int polls(int time) {
    struct pollfd one = {ring, POLLIN, 0};
    return poll(&one, 1, time);
}

static int ppolls(int time) {
    struct pollfd one = {ring, POLLIN, 0};
    struct timespec left = {0, time * 1000000L};
    return ppoll(&one, 1, &left, 0);
}

static int selects(int time) {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(ring, &in);
    struct timeval left = {0, time * 1000L};
    return select(ring + 1, &in, 0, 0, &left);
}

static void *in_thread(void *polled) {
    *(int *)polled = polls(400);
    return 0;
}

static int thread_polls(int time) {
    int polled = -1;
    pthread_t thread;
    pthread_create(&thread, 0, in_thread, &polled);
    usleep(time * 1000);
    pthread_join(thread, 0);
    return polled;
}

static void *stops(void *nothing) {
    usleep(100000);
    raise(SIGSTOP);
    return nothing;
}

static int thread_stops(int time) {
    pthread_t thread;
    pthread_create(&thread, 0, stops, 0);
    int polled = polls(time);
    pthread_join(thread, 0);
    return polled;
}

static void caught(int signal) { (void)signal; }

struct wait {
    const char *what;
    int (*waits)(int);
    int time, signal;
    void (*handler)(int);
    int handled;
};

/* What a child's wait answers that is sent a signal after 100 ms, and one that lets it go on after 150 more. */
static void sent(const struct wait *wait) {
    int pid = fork();
    if (!pid) {
        struct sigaction action = {.sa_handler = wait->handler, .sa_flags = SA_RESTART};
        sigaction(wait->handled, &action, 0);
        long start = now();
        say(wait->what, wait->waits(wait->time));
        long took = now() - start;
        printf("  after %s\n", took < 90 ? "nothing" : took < 245 ? "the signal" : took < 340 ? "it went on" : "its time");
        exit(0);
    }
    usleep(100000);
    if (wait->signal)
        kill(pid, wait->signal);
    usleep(150000);
    int status = 0, found = waitpid(pid, &status, WUNTRACED | WNOHANG);
    printf("%s: stopped %d\n", wait->what, found && WIFSTOPPED(status));
    kill(pid, SIGCONT);
    if (!found || WIFSTOPPED(status))
        waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        printf("  ended by %d\n", WTERMSIG(status));
}

static const struct wait all[] = {
    {"poll stopped", polls, 400, SIGSTOP, SIG_DFL, SIGUSR1},
    {"poll stopped by the terminal", polls, 400, SIGTTIN, SIG_DFL, SIGUSR1},
    {"poll stopped, and a handler when it goes on", polls, 400, SIGSTOP, caught, SIGCONT},
    {"poll and a handler", polls, 400, SIGUSR1, caught, SIGUSR1},
    {"poll and an ignored signal", polls, 400, SIGUSR1, SIG_IGN, SIGUSR1},
    {"poll and a signal ignored by default", polls, 400, SIGWINCH, SIG_DFL, SIGUSR1},
    {"poll and a signal that ends it", polls, 400, SIGQUIT, SIG_DFL, SIGUSR1},
    {"ppoll stopped", ppolls, 400, SIGSTOP, SIG_DFL, SIGUSR1},
    {"select stopped", selects, 400, SIGSTOP, SIG_DFL, SIGUSR1},
    {"poll of a thread stopped", thread_polls, 10, SIGSTOP, SIG_DFL, SIGUSR1},
    {"poll of a thread, and a handler in another", thread_polls, 600, SIGUSR1, caught, SIGUSR1},
    {"poll while a thread stops", thread_stops, 400, 0, SIG_DFL, SIGUSR1},
};
enum { ALL = sizeof all / sizeof *all };

/* All at once, told one after the other. */
int main(void) {
    ring = create(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0);
    FILE *told[ALL];
    for (int i = 0; i < ALL; i++) {
        told[i] = tmpfile();
        if (!fork()) {
            dup2(fileno(told[i]), 1);
            setvbuf(stdout, 0, _IONBF, 0);
            sent(&all[i]);
            exit(0);
        }
    }
    while (wait(0) > 0) {
    }
    for (int i = 0; i < ALL; i++) {
        rewind(told[i]);
        for (int c; (c = getc(told[i])) != EOF;)
            putchar(c);
    }
    return 0;
}
