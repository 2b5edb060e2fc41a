# shellcheck shell=bash
# What /dev/kvm is good for on this machine: sourced by quickstart.sh and tests/run.sh, which take QEMU's emulation
# where it can't run guests.

# udev gives the device to the group kvm, which QEMU's user is in. Where no udev runs, as in many containers and small
# VMs, nobody did; libvirt then takes KVM for usable, QEMU can't open it, and libvirt asks QEMU anew at every call.
open_kvm() {
    [[ -c /dev/kvm && ! -e /run/udev/control ]] && getent group kvm >/dev/null || return 0
    if [[ $(stat -c %G /dev/kvm) != kvm ]]; then chgrp kvm /dev/kvm && chmod 0660 /dev/kvm; fi
}

# There, and no good: guests are to be emulated.
kvm_is_broken() { [[ -c /dev/kvm ]] && ! kvm_works; }

# Boots a sector that ends QEMU with the exit code 33, through the firmware and with the CPU that guests get: some
# nested KVMs are there and fail at that. Prints nothing.
kvm_works() {
    [[ -c /dev/kvm ]] || return 1
    [[ $(uname -m) == x86_64 ]] || return 0 # elsewhere it is taken at its word
    local sector status
    sector=$(mktemp)
    # mov dx, 0x501; mov al, 0x10; out dx, al; hlt
    printf '\xba\x01\x05\xb0\x10\xee\xf4' >"$sector"
    truncate -s 510 "$sector" && printf '\x55\xaa' >>"$sector" && truncate -s 1M "$sector"
    status=0
    # In a shell of its own, which keeps it to itself when QEMU crashes.
    (
        timeout 20 qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 32 -nodefaults -display none \
            -no-reboot -device isa-debug-exit,iobase=0x501,iosize=1 -drive "file=$sector,format=raw,if=none,id=d" \
            -device ide-hd,drive=d </dev/null
        exit $?
    ) >/dev/null 2>&1 || status=$?
    rm -f -- "$sector"
    ((status == 33))
}
