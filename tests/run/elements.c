/* The element commands, and what an fd is: linked statically, without any library of BPF. */
#include "bpf.h"
#include <fcntl.h>
#include <sys/mman.h>

int main(void) {
    int key = 5, next = 0, missing = 6;
    long value = 77;
    int map = create(BPF_MAP_TYPE_HASH, 4, 8, 2, 0);
    printf("close on exec: %d\n", fcntl(map, F_GETFD) & FD_CLOEXEC);
    say("update", elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, BPF_NOEXIST));
    say("update again", elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, BPF_NOEXIST));
    value = 0;
    say("lookup", elem(BPF_MAP_LOOKUP_ELEM, map, &key, &value, 0));
    printf("value %ld\n", value);
    say("lookup of a missing key", elem(BPF_MAP_LOOKUP_ELEM, map, &missing, &value, 0));
    say("first key", elem(BPF_MAP_GET_NEXT_KEY, map, 0, &next, 0));
    printf("key %d\n", next);
    say("no key after it", elem(BPF_MAP_GET_NEXT_KEY, map, &next, &next, 0));
    say("null value", elem(BPF_MAP_UPDATE_ELEM, map, &missing, 0, 0));
    say("read-only value", elem(BPF_MAP_LOOKUP_ELEM, map, &key, (void *)main, 0));
    say("delete", elem(BPF_MAP_DELETE_ELEM, map, &key, 0, 0));
    int again = dup(map);
    close(map);
    say("closed", elem(BPF_MAP_UPDATE_ELEM, map, &key, &value, 0));
    say("its dup", elem(BPF_MAP_UPDATE_ELEM, again, &key, &value, 0));
    say("no map", elem(BPF_MAP_UPDATE_ELEM, 1, &key, &value, 0));
    int readable = create(BPF_MAP_TYPE_ARRAY, 4, 8, 2, BPF_F_RDONLY);
    key = 0;
    say("update of a read-only fd", elem(BPF_MAP_UPDATE_ELEM, readable, &key, &value, 0));
    say("mmap of a hash", mmap(0, 4096, PROT_READ, MAP_SHARED, again, 0) == MAP_FAILED ? -1 : 0);
    say("no such command", bpf(1000, &(union bpf_attr){}));
    return 3;
}
