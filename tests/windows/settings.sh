# Sourced by the scripts beside it. CPython for Windows runs under wine from a folder outside the checkout; only the
# wheel, and what is installed from it, lie in build/windows.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/windows
# Wine's own files are large (700 MB): point this elsewhere if the cache folder is saved or shared.
cache=${IOCPCORE_WINDOWS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/iocpcore/windows}

# 3.11 to 3.14, a `t` behind it means the free-threaded build. Other versions than 3.11 build beside it.
version=${PYTHON_VERSION:-3.11}
build=$root/build/windows$([ "$version" = 3.11 ] || echo "-$version")
release=${version%t}
tag=cp${release/./}
abi=cp${version/./}
library=python${version/./}
python=$cache/python$version # python.exe, DLLs, Lib, include, libs
host_version=3.11
host_python=$cache/build$host_version # a virtual environment of this machine's Python: it builds for all versions
pip_for_windows=(--platform win_amd64 --python-version "$release" --abi "$abi" --only-binary :all:)
compiler=x86_64-w64-mingw32-gcc-posix

set -euo pipefail
unset PYTHONHOME PYTHONPATH
. "$root/tools/apt.sh"

wine_program() {
    local path
    for path in /usr/lib/wine/"$1"64 "$(command -v "$1"64)" "$(command -v "$1")"; do
        [ -x "$path" ] && { echo "$path"; return; }
    done
    return 1
}

# Without root or apt the Windows part cannot be set up: that is said, and is a failure only where it was required.
skip() {
    printf '\n*** THE WINDOWS PART WAS SKIPPED: %s ***\n\n' "$*" >&2
    [ "${IOCPCORE_WINDOWS:-}" = required ] && exit 1
    exit 0
}
