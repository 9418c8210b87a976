# Sourced by the scripts beside it. CPython for Windows runs under wine from a folder outside the checkout; only the
# wheel, and what is installed from it, lie in build/windows.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/windows
# Wine's own files are large (700 MB): point this elsewhere if the cache folder is saved or shared.
cache=${IOCPCORE_WINDOWS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/iocpcore/windows}

set -euo pipefail
unset PYTHONHOME PYTHONPATH
. "$root/tools/apt.sh"
. "$root/tools/python.sh"

# This machine's Python builds the wheels for all versions, in a virtual environment.
host_program=$(choose_python)
host_version=$(minor_of "${host_program:-false}" || true)
host_python=$cache/build$host_version
# The Python for Windows is of the same version where there is such a one; PYTHON_VERSION names another of 3.11 to 3.14,
# and a `t` behind it means the free-threaded build. Others than the default build beside it.
case $host_version in 3.1[1-4]) default=$host_version ;; *) default=3.13 ;; esac
version=${PYTHON_VERSION:-$default}
# The compiler, and with it the ABI: MinGW's, or clang as Microsoft's, IOCPCORE_WINDOWS_COMPILER=msvc.
mingw=x86_64-w64-mingw32-gcc-posix
case ${IOCPCORE_WINDOWS_COMPILER:-mingw} in
    mingw) compiler=$mingw variant= ;;
    msvc) compiler=$here/msvc/cc variant=-msvc ;;
    *) echo "IOCPCORE_WINDOWS_COMPILER is mingw or msvc, not $IOCPCORE_WINDOWS_COMPILER" >&2; exit 2 ;;
esac
build=$root/build/windows$variant$([ "$version" = "$default" ] || echo "-$version")
release=${version%t}
tag=cp${release/./}
abi=cp${version/./}
library=python${version/./}
python=$cache/python$version # python.exe, DLLs, Lib, include, libs
pip_for_windows=(--platform win_amd64 --python-version "$release" --abi "$abi" --only-binary :all:)

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
