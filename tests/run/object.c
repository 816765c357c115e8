/* Loads an object with libbpf, uses its maps, reads its ring buffer and its perf buffer. The second argument: so many records
 * are waited for. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int records;

static int record(void *ctx, void *data, size_t size) {
    printf("record of %zu bytes: %.*s\n", size, size < 40 ? (int)size : 40, (char *)data);
    records++;
    return 0;
}

static void sample(void *ctx, int cpu, void *data, __u32 size) {
    printf("sample on CPU %d: %.6s\n", cpu, (char *)data);
    records++;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void say(const char *what, long ret, int number) {
    printf("%s: %s\n", what, ret < -1 ? strerror(-ret) : ret ? strerror(number) : "done");
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    struct bpf_object *object = bpf_object__open(argv[1]);
    if (!object || bpf_object__load(object)) {
        perror("load");
        return 1;
    }
    struct bpf_map *map;
    bpf_object__for_each_map(map, object)
        printf("%s: type %d\n", bpf_map__name(map), bpf_map__type(map));
    int key = 3, hash = bpf_object__find_map_fd_by_name(object, "hash");
    long value = 9;
    say("update", bpf_map_update_elem(hash, &key, &value, 0), errno);
    say("lookup", bpf_map_lookup_elem(hash, &key, &value), errno);

    int mapped = bpf_object__find_map_fd_by_name(object, "mapped");
    long *memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    memory[3] = 1234;
    bpf_map_lookup_elem(mapped, &key, &value);
    printf("written in memory, looked up: %ld\n", value);
    value = 99;
    bpf_map_update_elem(mapped, &key, &value, 0);
    printf("updated, read in memory: %ld\n", memory[3]);
    say("freeze while it can be written", bpf_map_freeze(mapped), errno);
    munmap(memory, 4096);
    say("freeze", bpf_map_freeze(mapped), errno);
    memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    say("map it to write", memory == MAP_FAILED ? -1 : 0, errno);
    memory = mmap(0, 4096, PROT_READ, MAP_PRIVATE, mapped, 0);
    say("map it for oneself", memory == MAP_FAILED ? -1 : 0, errno);
    memory = mmap(0, 8192, PROT_READ, MAP_SHARED, mapped, 0);
    say("map more than it has", memory == MAP_FAILED ? -1 : 0, errno);
    memory = mmap(0, 4096, PROT_READ, MAP_SHARED, hash, 0);
    say("map a hash", memory == MAP_FAILED ? -1 : 0, errno == 524 ? EINVAL : errno);

    struct ring_buffer *ring = ring_buffer__new(bpf_object__find_map_fd_by_name(object, "ring"), record, 0, 0);
    int events = bpf_object__find_map_fd_by_name(object, "events");
    struct perf_buffer *perf = perf_buffer__new(events, 8, sample, 0, 0, 0);
    if (!ring || !perf) {
        perror("buffers");
        return 1;
    }
    double start = now();
    printf("empty ring: %d\n", ring_buffer__poll(ring, 60));
    printf("empty perf buffer: %d\n", perf_buffer__poll(perf, 60));
    printf("%s\n", now() - start > 0.11 ? "waited" : "did not wait");
    /* The program itself, run for a test: it counts, and writes a record. */
    unsigned char packet[64] = {}, out[64];
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof packet, .data_out = out,
                .data_size_out = sizeof out, .repeat = 3);
    int prog = bpf_program__fd(bpf_object__find_program_by_name(object, "filter"));
    say("run", bpf_prog_test_run_opts(prog, &run), errno);
    printf("returned %u, %u bytes\n", run.retval, run.data_size_out);
    bpf_map_lookup_elem(hash, &key, &value);
    printf("counted to %ld\n", value);
    int zero = 0, bss = bpf_map__fd(bpf_object__find_map_by_name(object, "object.bss"));
    int runs = 0;
    bpf_map_lookup_elem(bss, &zero, &runs);
    printf("%d runs, %d records\n", runs, ring_buffer__poll(ring, 0));
    records = 0;
    if (argc > 2) {
        printf("ready\n");
        double end = now() + 10;
        while (records < atoi(argv[2]) && now() < end) {
            ring_buffer__poll(ring, 20);
            perf_buffer__poll(perf, 20);
        }
        printf("%d records\n", records);
    }
    perf_buffer__free(perf);
    ring_buffer__free(ring);
    bpf_object__close(object);
    return 0;
}
