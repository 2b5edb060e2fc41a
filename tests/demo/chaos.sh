#!/usr/bin/env bash
# A create that survives: libvirtd stops answering in the middle of it, the agent
# is killed with -9 and started again, and the client asks once more. One VM runs
# in the end, and reads were answered all along.
#
# Usage: sudo tests/demo/chaos.sh
#
# Installs what is missing, builds, and plays in a machine of its own: namespaces
# with a libvirtd that nobody else uses. Nothing of it is left but the packages and
# build/. GHOST_AGENT_BINARY, GHOST_TEST_IMAGE: a program and an image that are there
# already, instead of those in build/.
set -euo pipefail

clone=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
fail() {
    printf 'chaos: %s\n' "$*" >&2
    exit 1
}
(($# == 0)) || {
    sed -n '6s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
((EUID == 0)) || fail "needs root, for packages, namespaces and libvirt: sudo tests/demo/chaos.sh"
cd -- "$clone"

# shellcheck source=packaging/dependencies.sh
source packaging/dependencies.sh
packages=("${run_packages[@]}" passwd python3 python3-jsonschema python3-yaml util-linux)
[[ -n ${GHOST_AGENT_BINARY:-} ]] || packages+=("${build_packages[@]}")
[[ -n ${GHOST_TEST_IMAGE:-} ]] || packages+=("${image_packages[@]}")
install_packages "${packages[@]}"

log=$(mktemp)
player=
kvm_before=
clean_up() {
    # Asked to end, it takes its machine with it.
    [[ -z $player ]] || { kill "$player" 2>/dev/null && wait "$player"; } || true
    [[ -z $kvm_before ]] || { chown "${kvm_before% *}" /dev/kvm && chmod "${kvm_before#* }" /dev/kvm; }
    rm -f -- "$log"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if [[ -z ${GHOST_AGENT_BINARY:-} ]]; then
    echo "building (the first time takes minutes)"
    if ! { cmake --preset release -DGHOST_TESTS=OFF && cmake --build --preset release --target ghost-agent; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "the build failed"
    fi
    export GHOST_AGENT_BINARY=$clone/build/release/ghost-agent
fi

if [[ -z ${GHOST_TEST_VIRT_TYPE:-} ]]; then
    # shellcheck source=packaging/kvm.sh
    source packaging/kvm.sh
    [[ ! -c /dev/kvm ]] || kvm_before=$(stat -c '%U:%G %a' /dev/kvm)
    open_kvm
    if kvm_is_broken; then export GHOST_TEST_VIRT_TYPE=qemu; fi
fi

/usr/bin/python3 tests/demo/chaos.py &
player=$!
status=0
wait "$player" || status=$?
player=
(exit "$status")
