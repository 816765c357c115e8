# What the file system of pins answers, to the usual tools; with an argument, in working directories in it, too.

dir=/sys/fs/bpf
try() { echo "+ $*"; "$@" 2>&1; echo "= $?"; }
# Numbers of inodes, times, owners and sizes of directories are each file system's own.
told() { echo "+ stat $1"; stat -c '%F %a %h' "$1" 2>&1 | sed 's/regular empty file/regular file/'; }
bpftool map create $dir/pin type array key 4 value 4 entries 1 name pinned
told $dir
told $dir/pin
try touch $dir/file
try touch $dir/pin
try sh -c "echo text > $dir/file"
try sh -c "echo text > $dir/pin"
try sh -c "echo text >> $dir/pin"
try cat $dir/pin
try cat $dir/nothing
try test -e $dir/pin
try test -x $dir/pin
try mkdir $dir/sub
try mkdir $dir/sub
try mkdir $dir/with.dot
try mkdir $dir/sub/a $dir/sub/a/b
[ -z "$1" ] || try mkdir -p $dir/sub/a/b
told $dir/sub
try chmod 700 $dir/sub
told $dir/sub
try chmod 640 $dir/pin
told $dir/pin
try ln -s pin $dir/link
told $dir/link
try readlink $dir/link
try bpftool map lookup pinned $dir/link key 0 0 0 0
try ln $dir/pin $dir/hard
told $dir/pin
try ln $dir/pin $dir/sub/hard
try ln -s target $dir/dot.link
try bpftool map lookup pinned $dir/hard key 0 0 0 0
try mv $dir/hard $dir/sub/moved
try mv $dir/sub/moved $dir/with.dot
try mv $dir/sub $dir/other
try ls $dir/other
[ -z "$1" ] || try sh -c "cd $dir/other && pwd && ls && mkdir inside && rmdir inside && touch x"
try sh -c "cd $dir && bpftool map show pinned pin | grep -c pinned; bpftool map create here type array key 4 value 4 entries 1 name here; ls -d here; rm here; ls here"
try sh -c "cd $dir && cd .. && pwd"
try rmdir $dir/other
try rmdir $dir/pin
try unlink $dir/other
try rm $dir/nothing
try mknod $dir/fifo p
try mknod $dir/none/fifo p
try mkdir $dir/none/with.dot
try mv $dir/nothing $dir/with.dot
try mkdir $dir/with.dot/sub
try sh -c ": > $dir/none/file"
try ls $dir/pin/
try cp -a $dir/other copied
rm -rf copied
try mknod $dir/node c 1 3
try cp $dir/pin $dir/copied
try truncate -s 10 $dir/pin
try truncate -s 0 $dir/pin
try ls $dir
try sh -c "find $dir -type f | sort"
try sh -c "cd $dir && ls *"
try stat -f -c %T $dir $dir/pin
try rm -r $dir/other $dir/pin $dir/link $dir/dot.link
try ls $dir
try ls $dir/..
