#!/usr/bin/env bash
# Makes a clean Debian 12 in a directory, installs the package in it, boots it with systemd-nspawn and prints what
# inside.sh says there. Needs root.
#
# Usage: tests/package/boot.sh PACKAGE.deb IMAGE.qcow2
set -euo pipefail

package=$(realpath -- "$1")
image=$(realpath -- "$2")
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
place=$(mktemp -d -- "${TMPDIR:-/var/tmp}/ghost-package-XXXXXX")
root=$place/root
machine=
finish() {
    [[ -z $machine ]] || kill -KILL "$machine" 2>/dev/null || true
    rm -rf -- "$place"
}
trap finish EXIT
trap 'exit 130' INT TERM

cat >"$place/check.service" <<'END'
[Unit]
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/root/inside.sh
StandardOutput=file:/root/report.txt
StandardError=file:/root/report.txt
ExecStopPost=/usr/bin/systemctl poweroff --no-block

[Install]
WantedBy=graphical.target
END

# shellcheck disable=SC2016 # "$1" is the root that mmdebstrap gives its hooks
# As an owner would: apt takes what the package depends on, and nothing more.
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,jq,procps \
    --aptopt='APT::Install-Recommends "false"' \
    --customize-hook="copy-in '$package' /root" \
    --customize-hook="chroot \"\$1\" apt-get install -qy '/root/${package##*/}' >'$place/install.log' 2>&1" \
    --customize-hook="copy-in '$image' '$here/inside.sh' '$place/check.service' /root" \
    --customize-hook='mv "$1/root/check.service" "$1/etc/systemd/system/"' \
    --customize-hook="mv \"\$1/root/${image##*/}\" \"\$1/root/tiny.qcow2\"" \
    --customize-hook='chroot "$1" systemctl enable check.service' \
    bookworm "$root" >"$place/mmdebstrap.log" 2>&1 || {
    tail -n 40 "$place/mmdebstrap.log" "$place/install.log" 2>/dev/null
    echo "failed the package installs on a clean Debian"
    exit 0
}
# libvirt can't make groups for its guests in the old hierarchy of a machine that runs in a container.
[[ -e /sys/fs/cgroup/cgroup.controllers ]] || echo 'cgroup_controllers = []' >>"$root/etc/libvirt/qemu.conf"
echo "passed the package installs on a clean Debian"

# A network of its own, in which libvirt makes its bridge; /dev/net/tun is for the guest.
systemd-nspawn --quiet --directory="$root" --machine=ghost-package --private-network --register=no --keep-unit \
    --bind=/dev/net/tun --boot --kill-signal=SIGRTMIN+4 </dev/null >"$place/console.log" 2>&1 &
machine=$!
for ((waited = 0; waited < 600; waited++)); do
    kill -0 "$machine" 2>/dev/null || break
    sleep 1
done
if kill -KILL "$machine" 2>/dev/null; then echo "failed the machine ends within ten minutes"; fi
machine=
cat "$root/root/report.txt" 2>/dev/null || tail -n 40 "$place/console.log"
if [[ $(tail -n 1 "$root/root/report.txt" 2>/dev/null) != "done" ]]; then echo "failed all checks ran"; fi
if grep -q '^failed ' "$root/root/report.txt" 2>/dev/null; then tail -n 60 "$root/root/journal.txt" 2>/dev/null || true; fi
