#!/bin/bash
# The kernel's own tests of BPF maps, unmodified, under `mapemu run` as an ordinary user, and on the running kernel as root.
#
#   tests/run/selftests.sh FOLDER [PACKAGE...]
#
# FOLDER gets the kernel's sources from Debian's packages (linux-source-6.1 and linux-source-6.12, or those that are named), and
# what is built of them; they are GPL, and nothing of them is in this repository. Needs apt, gcc, make, clang, libelf-dev and
# setpriv. MAPEMU names the program (target/release/mapemu); HOST=0 leaves the running kernel alone; TESTS is a regular
# expression of names. A line is printed for each test, and in it whether the sides differ; `logs/` has their output.
set -u
[ $# -ge 1 ] || { sed -n '2,9s/^# \?//p' "$0"; exit 2; }
work=$(mkdir -p "$1" && cd "$1" && pwd) && shift
mapemu=$(realpath "${MAPEMU:-target/release/mapemu}")
cp "$mapemu" "$work/mapemu" # where an ordinary user can read it
[ "$(id -u)" = 0 ] && host=${HOST:-1} || host=0
differ=0

# An ordinary user without a capability; `--namespaces`: in a user namespace, for tests that make network namespaces.
ordinary() {
    local own=()
    [ "$1" = --namespaces ] && own=(unshare -r -n -m) && shift
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "${own[@]}" "$@"
    else
        "${own[@]}" "$@"
    fi
}

# NAME OPTIONS -- [--namespaces] COMMAND: on both sides.
both() {
    local name=$1 options=() ours theirs=- theirs_ms=- begin
    shift
    [[ $name =~ ${TESTS:-.} ]] || return 0
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    local namespaces=()
    [ "$1" = --namespaces ] && namespaces=("$1") && shift
    begin=$(date +%s%3N)
    ordinary "${namespaces[@]}" timeout 3600 "$work/mapemu" run "${options[@]}" -- "$@" > "$logs/$name.mapemu" 2>&1 < /dev/null
    ours=$?
    local ours_ms=$(($(date +%s%3N) - begin)) alike=
    if [ "$host" = 1 ]; then
        begin=$(date +%s%3N)
        timeout 3600 unshare -n -m "$@" > "$logs/$name.kernel" 2>&1 < /dev/null
        theirs=$? theirs_ms=$(($(date +%s%3N) - begin))
        [ $ours = $theirs ] || { alike='  differs' differ=1; }
    fi
    printf '%-46s mapemu %3s %7s ms   kernel %3s %7s ms%s\n' "$name" $ours $ours_ms "$theirs" "$theirs_ms" "$alike"
}

# PACKAGE: its sources in $src.
fetch() {
    src=$work/$1/source
    [ -d "$src" ] && return
    mkdir -p "$work/$1/deb" && cd "$work/$1" || exit 1
    apt-get -q=2 -o APT::Sandbox::User=root download "$1" && dpkg-deb -x "$1"_*.deb deb || exit 1
    mkdir source && tar -C source --strip-components=1 -xf deb/usr/src/"$1".tar.xz \
        "$1"/tools "$1"/kernel/bpf "$1"/samples/bpf "$1"/include "$1"/scripts && rm -r deb
    # One test asks for 140 MiB of the kernel; an eighth will do.
    sed -i 's/^#define MAP_SIZE (32 \* 1024)/#define MAP_SIZE (4 * 1024)/' source/tools/testing/selftests/bpf/test_maps.c
}

cc() {
    gcc -O2 -g -w -std=gnu11 -rdynamic -I. -I"$out/include" -I"$out" -I"$src/tools/lib" -I"$src/tools/include" \
        -I"$src/tools/arch/x86/include" -I"$src/tools/include/uapi" "$@"
}

# NAME: an object file.
object() {
    clang -O2 -g -w --target=bpf -mcpu=v3 -I. -I"$out/include" -I"$src/tools/include/uapi" -I/usr/include/x86_64-linux-gnu \
        -fno-strict-aliasing -c "progs/$1.c" -o "$out/$1.bpf.o"
}

# What test_maps.c has in it, each by its name.
maps_main() {
    echo '#define main all_of_it'
    echo '#include "test_maps.c"'
    echo '#undef main'
    echo 'void test__fail(void) { abort(); }'
    echo 'int main(int argc, char **argv) { (void)all_of_it;'
    sed -n '/^static void run_all_tests/,/^}/p' test_maps.c | grep -o 'test_[a-z_]*([^)]*)' |
        sed 's/\([a-z_]*\).*/if (!strcmp(argv[1], "\1")) { &; return 0; }/'
    sed 's/DEFINE_TEST(\(.*\))/if (!strcmp(argv[1], "\1")) { test_\1(); return 0; }/' map_tests/tests.h
    echo 'return 99; }'
}

# Builds in $out.
build() {
    cd "$src/tools/testing/selftests/bpf" || exit 1
    mkdir -p "$out"
    make -s -j2 -C "$src/tools/lib/bpf" OUTPUT="$out/" DESTDIR="$out" prefix= install_headers "$out/libbpf.a" || exit 1
    local libs="$out/libbpf.a -lelf -lz -lpthread" helpers= name
    for name in testing cap unpriv network trace; do
        [ -f ${name}_helpers.c ] && helpers+=" ${name}_helpers.c"
    done
    for name in test_map_in_map test_map_in_map_invalid; do
        object $name && cp "$out/$name.bpf.o" "$out/$name.o" # its name was another once
    done
    # Without those whose programs have to be attached in the kernel, or run there.
    grep -LE 'skel\.h' map_tests/*.c > "$out/map_tests"
    xargs sed -n 's/^void test_\([a-z0-9_]*\)(void)/DEFINE_TEST(\1)/p' < "$out/map_tests" > map_tests/tests.h
    maps_main > "$out/maps_main.c"
    echo 'void test__fail(void) { __builtin_abort(); }' > "$out/fail.c"
    cc -o "$out/test_maps" "$out/maps_main.c" $(cat "$out/map_tests") $helpers $libs || exit 1
    for name in test_lru_map test_lpm_map; do
        [ -f $name.c ] || continue
        cc -o "$out/$name" $name.c "$out/fail.c" $helpers $libs || exit 1
    done
    gcc -O2 -w -I"$out/include" -I. -idirafter "$src/tools/include" -o "$out/test_lru_dist" "$src/samples/bpf/test_lru_dist.c" \
        $libs || exit 1
    awk 'BEGIN { srand(1); for (i = 0; i < 20000; i++) print int(5000 ^ rand()) }' > "$out/keys"
    chmod -R a+rX "$work"
}

[ $# -gt 0 ] || set -- linux-source-6.1 linux-source-6.12
for package in "$@"; do
    out=$work/$package/out logs=$work/$package/logs
    fetch "$package" && mkdir -p "$logs" && build
    cd "$out" || exit 1
    echo "$package:"
    for name in $(grep -o 'argv\[1\], "[a-z0-9_]*' maps_main.c | sed 's/.*"//'); do
        case $name in
        test_sockmap) ;; # its programs run on the traffic of sockets
        test_reuseport_array) both $name -- --namespaces ./test_maps $name ;;
        *) both $name -- ./test_maps $name ;;
        esac
    done
    both test_lru_map -- ./test_lru_map
    # This one passes only on the kernel that it was written for.
    [ "$package" = linux-source-6.1 ] && host=0 both test_lru_map_on_6.1 --release 6.1.192 -- ./test_lru_map
    [ -x test_lpm_map ] && both test_lpm_map -- ./test_lpm_map
    both test_lru_dist -- ./test_lru_dist keys 500 1
    if [ "$host" = 1 ] && [ -f "$logs/test_lru_dist.kernel" ]; then
        cmp "$logs/test_lru_dist.mapemu" "$logs/test_lru_dist.kernel" || differ=1
    fi
done
exit $differ
