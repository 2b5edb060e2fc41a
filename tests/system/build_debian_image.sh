#!/usr/bin/env bash
# Builds a bootable Debian 12 (amd64, BIOS) with cloud-init, qemu-guest-agent and
# sshd, as distributions ship their cloud images: what the small test image only
# plays. Takes about five minutes; packages come by apt. Needs root.
#
# Usage: tests/system/build_debian_image.sh OUTPUT.qcow2
set -euo pipefail

if [[ $# -ne 1 || "$1" == -* ]]; then
    echo "usage: ${0##*/} OUTPUT.qcow2" >&2
    exit 2
fi
output=$(realpath -m -- "$1")
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

work=$(mktemp -d -- "${TMPDIR:-/var/tmp}/ghost-debian-XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"
cd "$work"

packages=(
    linux-image-cloud-amd64 systemd-sysv systemd-resolved dbus udev kmod
    cloud-init cloud-guest-utils e2fsprogs fdisk qemu-guest-agent
    openssh-server sudo login passwd netplan.io iproute2
)
cat >90_test.cfg <<'END'
datasource_list: [ NoCloud, None ]
# What takes an emulated processor a minute: keys of other kinds, and making a locale.
ssh_genkeytypes: [ ed25519 ]
locale: C.UTF-8
END
echo 'LABEL=debian / ext4 defaults 0 1' >fstab
mib=1048576
fat_mib=96
root_mib=1536

# shellcheck disable=SC2016 # "$1" is the root that mmdebstrap gives its hooks
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='copy-in 90_test.cfg /etc/cloud/cloud.cfg.d' \
    --customize-hook='copy-in fstab /etc' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
    --customize-hook='chroot "$1" systemctl enable serial-getty@ttyS0 systemd-networkd systemd-resolved ssh' \
    bookworm root >mmdebstrap.log 2>&1 || {
    tail -n 40 mmdebstrap.log >&2
    exit 1
}

# A FAT partition to start from, an ext4 one for the rest.
truncate -s "$(((fat_mib + root_mib + 2) * mib))" disk.raw
sfdisk -q disk.raw <<END
label: dos
start=2048, size=$((fat_mib * 2048)), type=e, bootable
start=$(((fat_mib + 1) * 2048)), size=$((root_mib * 2048)), type=83
END
cat >syslinux.cfg <<'END'
SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
    KERNEL vmlinuz
    INITRD initrd.img
    APPEND root=LABEL=debian ro console=tty0 console=ttyS0 quiet panic=-1 no_timer_check
END
export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
fat=disk.raw@@$mib
mformat -i "$fat" -v BOOT -T "$((fat_mib * 2048))" -h 255 -s 63 -H 2048 ::
mcopy -i "$fat" root/boot/vmlinuz-* ::vmlinuz
mcopy -i "$fat" root/boot/initrd.img-* ::initrd.img
mcopy -i "$fat" syslinux.cfg ::
syslinux --install --offset "$mib" disk.raw
dd if=/usr/lib/syslinux/mbr/mbr.bin of=disk.raw bs=440 count=1 conv=notrunc status=none
mke2fs -q -t ext4 -m 0 -L debian -E "root_owner=0:0,offset=$(((fat_mib + 1) * mib))" -d root disk.raw "${root_mib}M"

qemu-img convert -q -c -O qcow2 disk.raw finished.qcow2
mkdir -p -- "$(dirname -- "$output")"
cp finished.qcow2 "$output.$$"
mv -f -- "$output.$$" "$output"
