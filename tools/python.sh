# Sourced. The CPythons of this machine: on the PATH, or made by pyenv.

# is_python PROGRAM MINOR
is_python() {
    "$1" -c "import sys; sys.exit(('free-threading' in sys.version) != ('t' in '$2') or
        sys.version_info[:2] != (3, int('$2'.rstrip('t'))))" 2>/dev/null
}

# choose_python - prints the Python to build and test with: $PYTHON, or the first here that is new enough; else nothing.
choose_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.{14,13,12,11}}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            { command -v "$candidate"; return; }
    done
    return 0
}

# minor_of PROGRAM - "3.13"
minor_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# find_python MINOR - prints a CPython 3.MINOR that runs (13t: the free-threaded 3.13); fails if there is none.
find_python() {
    local candidate
    for candidate in python3."$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."${1%t}".*/bin/python3."$1"; do
        is_python "$candidate" "$1" && { echo "$candidate"; return; }
    done
    return 1
}
