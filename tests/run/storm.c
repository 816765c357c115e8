/* In a storm of signals each call happens once. */
#include "bpf.h"
#include <signal.h>
#include <sys/time.h>

static volatile int hits;

static void hit(int signal) { hits++; }

int main(void) {
    int queue = create(BPF_MAP_TYPE_QUEUE, 0, 8, 100000, 0);
    struct sigaction action = {.sa_handler = hit, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    struct itimerval often = {{0, 200}, {0, 200}}, never = {};
    setitimer(ITIMER_REAL, &often, 0);
    long failed = 0, popped = 0, wrong = 0, value;
    for (long i = 0; i < 3000; i++)
        failed += elem(BPF_MAP_UPDATE_ELEM, queue, 0, &i, 0) != 0;
    while (!elem(BPF_MAP_LOOKUP_AND_DELETE_ELEM, queue, 0, &value, 0))
        wrong += value != popped++;
    setitimer(ITIMER_REAL, &never, 0);
    printf("%ld popped, %ld failed, %ld wrong, %s\n", popped, failed, wrong, hits > 20 ? "a storm" : "calm");
    return 0;
}
