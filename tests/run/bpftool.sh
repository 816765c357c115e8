# What bpftool does with maps of each type that it can make.
dir=$1
try() { echo "+ $*"; bpftool "$@" 2>&1; echo "= $?"; }
bytes() { i=0; while [ $i -lt "$1" ]; do printf ' %d' $((i % 7)); i=$((i + 1)); done; }
mkdir "$dir/sub" || exit 1
for map in hash:4:8 array:4:8 percpu_hash:4:8 percpu_array:4:8 lru_hash:4:8 lru_percpu_hash:4:8 lpm_trie:8:8 queue:0:8 stack:0:8 \
    bloom_filter:0:8 prog_array:4:4 perf_event_array:4:4 stack_trace:4:8 cgroup_array:4:4 devmap:4:4 devmap_hash:4:4 cpumap:4:4 xskmap:4:4 \
    sockmap:4:4 sockhash:4:4 reuseport_sockarray:4:8 ringbuf:0:0 user_ringbuf:0:0 struct_ops:4:4 nonsense:4:4; do
    IFS=: read -r type key value <<END
$map
END
    entries=2
    flags=0
    name=$type
    case $type in
        lpm_trie) flags=1 ;;
        # The order of the keys does not depend on chance.
        hash | percpu_hash | lru_hash | lru_percpu_hash) flags=64 ;;
        ringbuf | user_ringbuf) entries=4096 ;;
        # Others on the same kernel may have a queue, too.
        queue) name=bpftool_queue ;;
    esac
    pin=$dir/sub/$type
    try map create "$pin" type "$type" key "$key" value "$value" entries $entries name "$name" flags $flags
    case $type in
        queue | stack)
            try map push pinned "$pin" value$(bytes "$value")
            try map push pinned "$pin" value 9 8 7 6 5 4 3 2
            try map push pinned "$pin" value$(bytes "$value")
            try map peek pinned "$pin"
            try map pop pinned "$pin"
            try map dequeue pinned "$pin"
            try map dump pinned "$pin" ;;
        *)
            if [ "$key" = 8 ]; then first='16 0 0 0 10 1 0 0'; second='24 0 0 0 10 1 0 0'; else first='0 0 0 0'; second='1 0 0 0'; fi
            # A per-CPU value is given as a file; bpftool repeats it for each CPU.
            try map update pinned "$pin" key $first value$(bytes "$value")
            try map update pinned "$pin" key $second value$(bytes "$value") noexist
            try map update pinned "$pin" key $second value$(bytes "$value") exist
            try map lookup pinned "$pin" key $first
            try map getnext pinned "$pin" key $first
            try map dump pinned "$pin"
            try -j map dump pinned "$pin"
            try map delete pinned "$pin" key $first
            try map lookup pinned "$pin" key $first ;;
    esac
    try map show pinned "$pin"
    try map freeze pinned "$pin"
    try map update pinned "$pin" key 0 0 0 0 value$(bytes "$value")
    try map show pinned "$pin"
done
try map create "$dir/inner" type array key 4 value 4 entries 1 name bpftool_inner
try map create "$dir/outer" type hash_of_maps key 4 value 4 entries 2 name outer inner_map pinned "$dir/inner"
try map update pinned "$dir/outer" key 1 0 0 0 value pinned "$dir/inner"
try map create "$dir/with.dot" type array key 4 value 4 entries 1 name dot
try map create "$dir/inner" type array key 4 value 4 entries 1 name bpftool_inner
try map pin pinned "$dir/inner" "$dir/again"
mv "$dir/again" "$dir/moved"
try map show pinned "$dir/moved"
try map show pinned "$dir/again"
try map show name bpftool_queue
ls "$dir" | grep -v debug
rm -r "$dir/sub" "$dir/moved" "$dir/outer"
ls "$dir" | grep -v debug
rm "$dir/inner"
# The kernel takes a moment to let go of it.
i=0
while [ $i -lt 50 ] && bpftool map show name bpftool_inner > /dev/null 2>&1; do sleep 0.1; i=$((i + 1)); done
try map show name bpftool_inner
