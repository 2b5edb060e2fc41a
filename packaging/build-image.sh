#!/usr/bin/env bash
# Builds a small bootable cloud image (amd64, BIOS) from Debian packages: kernel,
# busybox, qemu-guest-agent and dropbear. It reads a NoCloud seed (host name, SSH
# keys, the user to make), asks DHCP for an address on every NIC, and obeys the
# power button. For trying the agent out and for its tests; its console has a
# root shell without a password.
#
# Usage: packaging/build-image.sh OUTPUT.qcow2
#
# GHOST_IMAGE_CACHE  where finished images are kept (default /var/cache/ghost-agent).
# An image is built anew when this script or the kernel's version changes.
set -euo pipefail

if [[ $# -ne 1 || "$1" == -* ]]; then
    echo "usage: ${0##*/} OUTPUT.qcow2" >&2
    exit 2
fi
output=$(realpath -m -- "$1")
script=$(realpath -- "${BASH_SOURCE[0]}")
cache=${GHOST_IMAGE_CACHE:-/var/cache/ghost-agent}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

say() { printf 'build-image: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

declare -A package_of=([apt-get]=apt [dpkg-deb]=dpkg [cpio]=cpio [depmod]=kmod [modprobe]=kmod [mcopy]=mtools
    [mke2fs]=e2fsprogs [qemu-img]=qemu-utils [sfdisk]=fdisk [syslinux]=syslinux)
absent=()
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || absent+=("${package_of[$program]}")
done
[[ -f /usr/lib/syslinux/mbr/mbr.bin ]] || absent+=(syslinux-common)
((${#absent[@]} == 0)) || fail "install what is missing: apt-get install ${absent[*]}"
[[ $(dpkg --print-architecture) == amd64 ]] || fail "builds images for amd64 on amd64 only"

# The kernel that the metapackage stands for today, such as linux-image-6.1.0-40-cloud-amd64.
find_kernel() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}
kernel_package=$(find_kernel)
if [[ -z $kernel_package ]]; then
    say "reading the package lists"
    apt-get update -q >&2 || fail "the package lists can't be read"
    kernel_package=$(find_kernel)
fi
[[ -n $kernel_package ]] || fail "apt knows no linux-image-cloud-amd64"
kernel=${kernel_package#linux-image-}
kernel_version=$(apt-cache show --no-all-versions "$kernel_package" | sed -n 's/^Version: //p' | head -n 1)

key=$({
    cat -- "$script"
    echo "$kernel $kernel_version"
} | sha256sum | cut -c 1-16)
cached=$cache/tiny-$kernel-$key.qcow2

# Puts the image in its place in one step. The copy is new: callers compare its time with this script's.
deliver() {
    mkdir -p -- "$(dirname -- "$output")"
    cp --reflink=auto -- "$cached" "$output.$$"
    touch -- "$output.$$"
    mv -f -- "$output.$$" "$output"
    say "$output ($(du -h -- "$output" | cut -f 1), kernel $kernel)"
}
mkdir -p -- "$cache"
if [[ -f $cached ]]; then
    deliver
    exit 0
fi

work=$(mktemp -d -- "${TMPDIR:-/tmp}/ghost-image-XXXXXX")
trap 'rm -rf -- "$work"' EXIT
chmod 755 "$work"
cd "$work"
mkdir debs tree root boot

# The libraries that the programs need, as packages: their whole closure, but of libraries only.
programs=(busybox-static dropbear-bin qemu-guest-agent)
mapfile -t closure < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances dropbear-bin qemu-guest-agent | grep -E '^z?lib[a-z0-9.+-]+$' | sort -u)
# A name that only others provide can't be downloaded; what provides it is in the list by its own name.
mapfile -t libraries < <(apt-cache show --no-all-versions "${closure[@]}" 2>/dev/null | sed -n 's/^Package: //p' | sort -u)
say "downloading $kernel_package and $((${#programs[@]} + ${#libraries[@]})) small packages"
(cd debs && apt-get download -q "$kernel_package" "${programs[@]}" "${libraries[@]}" >download.log 2>&1) || {
    cat debs/download.log >&2
    fail "a package can't be downloaded"
}
for package in debs/*.deb; do dpkg-deb -x "$package" tree; done
# Since Debian's merged /usr a library's folder may be named either way.
for folder in lib lib64; do
    if [[ -d tree/$folder && ! -L tree/$folder ]]; then
        mkdir -p "tree/usr/$folder"
        cp -a "tree/$folder/." "tree/usr/$folder/"
        rm -rf "tree/$folder"
    fi
    mkdir -p "tree/usr/$folder"
    ln -s "usr/$folder" "tree/$folder"
done

# ---- the root file system ----
mkdir -p root/{bin,dev,etc/acpi/PWRF,etc/dropbear,home,lib/modules,lib/x86_64-linux-gnu,lib64,mnt,proc,root,run,sbin} \
    root/{sys,tmp,usr/bin,usr/sbin,var/lib/seed,var/log}
ln -s ../run root/var/run
chmod 1777 root/tmp
chmod 700 root/root
busybox=$(find tree -path '*/bin/busybox' -type f -print -quit)
cp "$busybox" root/bin/busybox
for applet in $("$busybox" --list); do
    [[ $applet == busybox ]] || ln -s /bin/busybox "root/bin/$applet"
done
ln -s /bin/busybox root/sbin/init

copy_program() { # with the libraries it is linked to, from the packages and not from this machine
    local program=$1 target=$2 library
    cp "$program" "$target"
    tree/lib64/ld-linux-x86-64.so.2 --library-path tree/usr/lib/x86_64-linux-gnu --list "$program" |
        sed -n 's/.*=> \([^ ]*\).*/\1/p' >libraries
    while read -r library; do
        [[ $library == tree/* ]] || fail "$program needs a library that no package brought: $library"
        cp -L --update "$library" root/lib/x86_64-linux-gnu/
    done <libraries
}
copy_program tree/usr/sbin/qemu-ga root/usr/sbin/
copy_program tree/usr/sbin/dropbear root/usr/sbin/
copy_program tree/usr/bin/dropbearkey root/usr/bin/
cp -L tree/lib64/ld-linux-x86-64.so.2 root/lib64/

# Prints the files of the modules $@ and of those they need, in the order of loading.
depmod -b tree "$kernel"
modules() {
    local module
    for module in "$@"; do
        modprobe -d tree -S "$kernel" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++'
}
install_modules() { # into $1: the modules $2...
    local folder=$1 file
    shift
    mkdir -p "$folder/lib/modules"
    modules "$@" >module-files
    while read -r file; do
        cp "$file" "$folder/lib/modules/"
        basename "$file" >>"$folder/lib/modules/order"
    done <module-files
}
disk_modules=(virtio_pci virtio_blk virtio_scsi sd_mod ata_piix ext4)
install_modules boot "${disk_modules[@]}"
install_modules root "${disk_modules[@]}" sr_mod isofs vfat nls_cp437 nls_ascii nls_iso8859-1 virtio_net \
    virtio_console virtio_balloon virtio_rng virtio_mem button evdev acpiphp

cat >root/etc/os-release <<'END'
ID=ghost-tiny
NAME="Ghost tiny guest"
VERSION_ID="1"
END
echo 'root::0:0:root:/root:/bin/sh' >root/etc/passwd
echo 'root:x:0:' >root/etc/group
echo 'passwd: files' >root/etc/nsswitch.conf
echo '/bin/sh' >root/etc/shells
echo 'tiny' >root/etc/hostname

cat >root/etc/inittab <<'END'
::sysinit:/etc/rc.start
::respawn:/usr/sbin/dropbear -F -R -s
::respawn:/bin/acpid -d -c /etc/acpi
::respawn:/etc/rc.guest-agent
ttyS0::respawn:-/bin/sh
tty1::askfirst:-/bin/sh
::shutdown:/etc/rc.stop
::ctrlaltdel:/bin/reboot
END

cat >root/etc/rc.start <<'END'
#!/bin/sh
# Once at boot: devices, the seed, the network.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
while read -r module; do insmod "/lib/modules/$module" 2>/dev/null; done </lib/modules/order
chown -R 0:0 /root /etc/dropbear
# Made now and not with the first login, so that whoever logs in can know it before.
key=/etc/dropbear/dropbear_ed25519_host_key
[ -e "$key" ] || dropbearkey -t ed25519 -f "$key" >/dev/null 2>&1
hostname "$(cat /etc/hostname)"
/etc/rc.seed
ip link set lo up
for device in /sys/class/net/e*; do
    [ -e "$device" ] || continue
    name=${device##*/}
    ip link set "$name" up
    udhcpc -i "$name" -s /etc/udhcpc.sh -x "hostname:$(hostname)" -b -t 20 -T 1 -p "/run/udhcpc.$name.pid" \
        >/dev/console 2>&1 &
done
echo "ghost-tiny: ready after $(cut -d ' ' -f 1 /proc/uptime) s" >/dev/console
END

cat >root/etc/rc.seed <<'END'
#!/bin/sh
# Reads a NoCloud seed: a disk labelled cidata with meta-data, user-data and vendor-data, as YAML or JSON.
settle() { # waits for the kernel to have looked at all disks
    tries=0
    while [ $tries -lt 20 ] && ! find_seed; do
        tries=$((tries + 1))
        sleep 0.1
    done
}
find_seed() {
    for disk in /dev/sr? /dev/vd? /dev/sd?; do
        [ -b "$disk" ] || continue
        # ISO 9660 keeps its label at 32808, FAT at 43 or 71.
        for offset in 32808 43 71; do
            label=$(dd if="$disk" bs=1 skip=$offset count=6 2>/dev/null)
            case $label in cidata | CIDATA) seed=$disk; return 0 ;; esac
        done
    done
    return 1
}
# One "key: value" a line, whether it stood in YAML or JSON. JSON may write / as \/.
flat() { sed 's#\\/#/#g' "$@" 2>/dev/null | tr '{},' '\n\n\n' | tr -d '"'; }
value_of() { # of the key $1, in the files after it; the first one counts
    key=$1
    shift
    flat "$@" | sed -n "s/^[ -]*$key: *\([^ ]*\).*/\1/p" | head -n 1
}
keys() { flat "$@" | grep -oE '(ssh-(rsa|ed25519)|(sk-)?(ecdsa-sha2|ssh-ed25519)[a-z0-9@.-]*) [A-Za-z0-9+/]+=*' | sort -u; }
allow() { # user, home
    mkdir -p "$2/.ssh"
    cp /tmp/keys "$2/.ssh/authorized_keys"
    chmod 700 "$2" "$2/.ssh"
    chmod 600 "$2/.ssh/authorized_keys"
    chown -R "$1" "$2"
}
seed=
settle
[ -n "$seed" ] || exit 0
mount -o ro "$seed" /mnt || exit 0
cd /mnt || exit 0
name=$(value_of hostname user-data)
[ -n "$name" ] || name=$(value_of local-hostname meta-data)
if [ -n "$name" ]; then
    echo "$name" >/etc/hostname
    hostname "$name"
fi
keys user-data vendor-data meta-data >/tmp/keys
allow root /root
for user in $(flat user-data vendor-data | sed -n 's/^[ -]*\[*name: *\([a-z_][a-z0-9_-]*\) *$/\1/p'); do
    [ "$user" = root ] && continue
    if ! id "$user" >/dev/null 2>&1; then
        number=$((1000 + $(wc -l </etc/passwd)))
        echo "$user:x:$number:" >>/etc/group
        echo "$user:x:$number:$number::/home/$user:/bin/sh" >>/etc/passwd
    fi
    allow "$user" "/home/$user"
done
# A user-data that is a script runs once for each instance.
instance=$(value_of instance-id meta-data | tr -cd 'A-Za-z0-9._-')
if head -c 2 user-data 2>/dev/null | grep -q '#!' && [ ! -e "/var/lib/seed/$instance" ]; then
    cp user-data /var/lib/seed/script
    chmod 700 /var/lib/seed/script
    touch "/var/lib/seed/$instance"
    /var/lib/seed/script >/dev/console 2>&1
fi
cd /
umount /mnt
rm -f /tmp/keys
echo "ghost-tiny: seed of $seed applied, host name $(hostname)" >/dev/console
END

cat >root/etc/rc.guest-agent <<'END'
#!/bin/sh
# The guest agent on its virtio port, as soon as there is one.
port=$(grep -l '^org.qemu.guest_agent.0$' /sys/class/virtio-ports/*/name 2>/dev/null | head -n 1)
if [ -z "$port" ]; then
    sleep 5
    exit 0
fi
port=${port%/name}
exec /usr/sbin/qemu-ga -m virtio-serial -p "/dev/${port##*/}" -l /run/qemu-ga.log -t /run
END

cat >root/etc/rc.stop <<'END'
#!/bin/sh
echo "ghost-tiny: stopping" >/dev/console
killall -q udhcpc
sync
umount -a -r 2>/dev/null
mount -o remount,ro / 2>/dev/null
END

cat >root/etc/udhcpc.sh <<'END'
#!/bin/sh
case $1 in
    deconfig) ip addr flush dev "$interface" ;;
    bound | renew)
        ip addr replace "$ip/${mask:-24}" dev "$interface"
        [ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
        : >/etc/resolv.conf
        for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
        [ "$1" = renew ] || echo "ghost-tiny: $interface has $ip"
        ;;
esac
END

cat >root/etc/acpi/PWRF/00000080 <<'END'
#!/bin/sh
echo "ghost-tiny: power button" >/dev/console
exec /bin/poweroff
END

# What the guest agent calls for its guest-shutdown.
cat >root/sbin/shutdown <<'END'
#!/bin/sh
case $1 in
    -r) exec /bin/reboot ;;
    -H) exec /bin/halt ;;
    *) exec /bin/poweroff ;;
esac
END
chmod 755 root/etc/rc.start root/etc/rc.seed root/etc/rc.guest-agent root/etc/rc.stop root/etc/udhcpc.sh \
    root/etc/acpi/PWRF/00000080 root/sbin/shutdown

# ---- the first stage: finds the root disk ----
mkdir -p boot/{bin,dev,newroot,proc,sys}
cp "$busybox" boot/bin/busybox
for applet in sh mount insmod sleep findfs switch_root; do ln -s busybox "boot/bin/$applet"; done
cat >boot/init <<'END'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/modules/$module" 2>/dev/null; done </lib/modules/order
tries=0
while ! root=$(findfs LABEL=ghost-tiny 2>/dev/null); do
    tries=$((tries + 1))
    if [ $tries -ge 100 ]; then
        echo "ghost-tiny: no root disk"
        exec sh
    fi
    sleep 0.1
done
mount -t ext4 -o rw "$root" /newroot
mount --move /dev /newroot/dev
mount --move /proc /newroot/proc
mount --move /sys /newroot/sys
exec switch_root /newroot /sbin/init
END
chmod 755 boot/init
(cd boot && find . | cpio --quiet -o -H newc -R 0:0 | gzip -9) >initrd.gz

# ---- the disk: a FAT partition to start from, an ext4 one for the rest ----
mib=1048576
fat_mib=24
root_mib=72
truncate -s "$(((fat_mib + root_mib + 2) * mib))" disk.raw
sfdisk -q disk.raw <<END
label: dos
start=2048, size=$((fat_mib * 2048)), type=e, bootable
start=$(((fat_mib + 1) * 2048)), size=$((root_mib * 2048)), type=83
END
export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
fat=disk.raw@@$mib
mformat -i "$fat" -v BOOT -T "$((fat_mib * 2048))" -h 255 -s 63 -H 2048 ::
# no_timer_check: an emulated processor on a busy host can miss the kernel's test of its timer, which then panics.
cat >syslinux.cfg <<'END'
SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
    KERNEL vmlinuz
    INITRD initrd.gz
    APPEND console=tty0 console=ttyS0 quiet panic=-1 no_timer_check
END
mcopy -i "$fat" "tree/boot/vmlinuz-$kernel" ::vmlinuz
mcopy -i "$fat" initrd.gz syslinux.cfg ::
syslinux --install --offset "$mib" disk.raw
dd if=/usr/lib/syslinux/mbr/mbr.bin of=disk.raw bs=440 count=1 conv=notrunc status=none
mke2fs -q -t ext4 -m 0 -L ghost-tiny -E "root_owner=0:0,offset=$(((fat_mib + 1) * mib))" -d root disk.raw "${root_mib}M"

qemu-img convert -q -c -O qcow2 disk.raw finished.qcow2
cp finished.qcow2 "$cached.$$"
mv -f -- "$cached.$$" "$cached"
# Images of earlier scripts and kernels are of no more use.
find "$cache" -maxdepth 1 -name 'tiny-*.qcow2' ! -name "${cached##*/}" -delete
deliver
