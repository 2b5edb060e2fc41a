# shellcheck shell=bash
# The Debian 12 packages that building, running and testing need: one list for
# quickstart.sh and tests/run.sh, which source this file.

# shellcheck disable=SC2034 # read by those who source it
build_packages=(
    ca-certificates ccache clang-19 cmake dpkg-dev lld-19 make ninja-build pkg-config
    libarchive-dev libboost-json1.81-dev libboost-url1.81-dev libboost1.81-dev libcli11-dev libfmt-dev libpugixml-dev
    libsqlite3-dev libssl-dev libsystemd-dev libvirt-dev libyaml-cpp-dev nlohmann-json3-dev prometheus-cpp-dev
)
# shellcheck disable=SC2034
run_packages=(
    curl dnsmasq-base gpgv iproute2 iptables jq libvirt-clients libvirt-daemon-driver-qemu libvirt-daemon-system openssl procps
    qemu-system-x86 qemu-utils
)
# What packaging/build-image.sh calls.
# shellcheck disable=SC2034
image_packages=(cpio e2fsprogs fdisk kmod mtools qemu-utils syslinux syslinux-common)
# shellcheck disable=SC2034
test_packages=(
    catch2 clang-format-19 clang-tidy-19 dbus-daemon git gnupg libclang-rt-19-dev llvm-19 man-db mmdebstrap
    openssh-client python3 python3-jsonschema python3-pytest python3-websocket python3-yaml shellcheck systemd
    systemd-container util-linux
)

# Installs those of the packages $@ that aren't there. Needs root only when there is something to do.
install_packages() {
    local package
    local -a absent=()
    local -A installed=()
    while read -r package; do installed[$package]=yes; done < <(
        dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p'
    )
    for package in "$@"; do
        [[ ${installed[$package]:-} == yes ]] || absent+=("$package")
    done
    ((${#absent[@]} > 0)) || return 0
    if ((EUID != 0)); then
        echo "these packages are missing and installing them needs root: ${absent[*]}" >&2
        return 1
    fi
    echo "installing ${#absent[@]} packages: ${absent[*]}"
    local -a apt=(apt-get -q -y -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" install --no-install-recommends "${absent[@]}" >/dev/null 2>&1 && return 0
    # Once more with fresh lists, and aloud.
    "${apt[@]}" update >/dev/null
    "${apt[@]}" install --no-install-recommends "${absent[@]}"
}
