#!/bin/sh
# build.sh [native|windows|all] [DIRECTORY]: the contract suite as DIRECTORY/contract and DIRECTORY/contract.exe.
# CFLAGS are added to both (a sanitizer, say); CC and WINDOWS_CC name the compilers; EPOLL_ONLY=1 leaves io_uring out.
# With MSVC: cl /std:c11 /Iiocpcore\calls tests\contract\*.c ws2_32.lib mswsock.lib /Fe:contract.exe
set -eu
cd "$(dirname "$0")/../.."
what=${1:-all} out=${2:-build/contract}
warnings="-Wall -Wextra -Werror" include="-Iiocpcore/calls -Iiocpcore"
mkdir -p "$out"

native() {
    linux=iocpcore/calls/linux uring='' libraries=''
    if [ -z "${EPOLL_ONLY:-}" ] && pkg-config --exists liburing 2>/dev/null; then
        uring="$linux/uring.c -DIOCPCORE_URING $(pkg-config --cflags liburing)"
        libraries=$(pkg-config --libs liburing)
    fi
    rm -rf "$out/objects"; mkdir -p "$out/objects"
    # The cases must stay plain C11 for other compilers; the Linux sources are GNU C.
    for source in tests/contract/*.c; do
        ${CC:-cc} -std=c11 -pedantic -D_GNU_SOURCE $warnings -O1 -g -pthread ${CFLAGS:-} $include -c "$source" \
            -o "$out/objects/$(basename "$source" .c).o"
    done
    ${CC:-cc} -std=gnu11 $warnings -O1 -g -pthread ${CFLAGS:-} $include -o "$out/contract" "$out"/objects/*.o \
        $linux/port.c $linux/socket.c $linux/epoll.c $uring $libraries
}

windows() {
    ${WINDOWS_CC:-x86_64-w64-mingw32-gcc-posix} -std=c11 -pedantic $warnings -O1 -g -static ${CFLAGS:-} $include \
        -o "$out/contract.exe" tests/contract/*.c -lws2_32 -lmswsock
}

case $what in
native) native ;;
windows) windows ;;
all) native; windows ;;
*) echo "usage: build.sh [native|windows|all] [DIRECTORY]" >&2; exit 2 ;;
esac
