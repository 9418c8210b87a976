# Sourced. The packages of Debian and Ubuntu: installed only when missing, and only where that is allowed.

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    echo "installing: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update </dev/null || echo "apt-get update failed: going on with the older package lists" >&2
    apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" </dev/null >/dev/null
}
