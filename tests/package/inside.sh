#!/usr/bin/env bash
# Runs as root in the freshly booted Debian that tests/package/boot.sh made: looks at the installed service and drives a
# guest through it. Prints `passed NAME` or `failed NAME` for each check; the last line is `done`.
set -uo pipefail

vm=web
unit=ghost-agent.service

check() { # name, command
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "passed $name"
    else
        echo "failed $name"
        printf '    %s\n' "${output//$'\n'/$'\n'    }"
    fi
}
within() { # seconds, command: until it succeeds
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || { "$@"; return 1; }
        sleep 0.3
    done
}
property() { systemctl show -p "$1" --value "$unit"; }
agent_pid() { property MainPID; }
qemu_pid() { pgrep -f "qemu-system-x86_64.*guest=$vm,"; }
is() { # what it is, what it should be
    [[ $1 == "$2" ]] || { echo "'$1' is not '$2'"; return 1; }
}

is_active_and_ready() {
    is "$(property ActiveState)/$(property SubState)/$(property NRestarts)" active/running/0 &&
        ghostctl status -o json | jq -e '.health.checks.libvirt.status == "up" and .health.status != "unhealthy"'
}
keeps_to_its_limits() {
    is "$(property NoNewPrivileges)" yes && is "$(property ProtectSystem)" strict &&
        is "$(sed -n 's/^Seccomp:\s*//p' "/proc/$(agent_pid)/status")" 2 &&
        is "$(sed -n 's/^CapBnd:\s*//p' "/proc/$(agent_pid)/status")" 000000000000040f &&
        is "$(stat -c %a:%U:%G /run/ghost/agent.sock)" 660:root:ghost &&
        is "$(stat -c %a:%U:%G /var/lib/ghost)" 711:root:root
}
guest_boots() {
    ghostctl image add tiny --file /root/tiny.qcow2 &&
        ghostctl vm create "$vm" --image tiny --vcpu 1 --memory-mib 256 --disk 1 --wait-for address --timeout 4m &&
        ghostctl vm status "$vm" -o json | jq -e '.status.power == "running" and (.status.addresses | length) > 0'
}
guest_is_not_the_services() {
    ! grep -q "$unit" "/proc/$(qemu_pid)/cgroup" || { cat "/proc/$(qemu_pid)/cgroup"; return 1; }
}
runs_on_as() { # pid of its QEMU
    within 60 ghostctl vm status "$vm" -o json && is "$(qemu_pid)" "$1" &&
        ghostctl vm status "$vm" -o json | jq -e '.status.power == "running"'
}
survives_a_restart() {
    local guest agent
    guest=$(qemu_pid) agent=$(agent_pid)
    systemctl restart "$unit" && [[ $(agent_pid) != "$agent" ]] && runs_on_as "$guest"
}
obeys_a_reload() {
    local agent
    agent=$(agent_pid)
    systemctl reload "$unit" && within 20 sh -c "journalctl -u $unit | grep -q 'configuration read again'" &&
        is "$(agent_pid)" "$agent"
}
survives_sigkill() {
    local guest agent
    guest=$(qemu_pid) agent=$(agent_pid)
    kill -KILL "$agent" && within 60 back_as_another "$agent" && runs_on_as "$guest"
}
back_as_another() { [[ $(agent_pid) != "$1" && $(property ActiveState) == active ]]; }
watchdog_bites() {
    local guest agent
    guest=$(qemu_pid)
    mkdir -p "/run/systemd/system/$unit.d"
    printf '[Service]\nWatchdogSec=4\n' >"/run/systemd/system/$unit.d/watchdog.conf"
    systemctl daemon-reload && systemctl restart "$unit" || return 1
    agent=$(agent_pid)
    sleep 10 # it is fed meanwhile
    is "$(agent_pid)" "$agent" || return 1
    kill -STOP "$agent" && within 90 back_as_another "$agent" && runs_on_as "$guest"
    local good=$?
    rm -r "/run/systemd/system/$unit.d"
    systemctl daemon-reload && systemctl restart "$unit"
    return $good
}
logs_to_the_journal() {
    journalctl -u "$unit" -o json | jq -es 'map(select((.MESSAGE | startswith("operation ended")) and .PRIORITY == "6" and .GHOST_KIND == "vm.create")) | length > 0'
}
guest_stops() {
    ghostctl vm stop "$vm" --timeout 2m && ghostctl vm status "$vm" -o json | jq -e '.status.power == "off"' &&
        ! qemu_pid
}
guest_goes() {
    ghostctl vm delete "$vm" --yes && ghostctl image delete tiny &&
        is "$(find /var/lib/ghost/disks /var/lib/ghost/images -type f | wc -l)" 0
}
refuses_a_bad_configuration() {
    cp -a /etc/ghost/agent.yaml /root/agent.yaml.good
    printf 'logging:\n  level: loud\n' >/etc/ghost/agent.yaml
    ! systemctl restart "$unit" && sleep 4 && is "$(property ExecMainStatus)/$(property NRestarts)" 78/0 &&
        journalctl -u "$unit" | grep -F 'agent.yaml:2: logging.level'
    local good=$?
    cp -a /root/agent.yaml.good /etc/ghost/agent.yaml
    systemctl reset-failed "$unit" && systemctl start "$unit"
    return $good
}
goes_when_purged() {
    DEBIAN_FRONTEND=noninteractive apt-get purge -qy ghost-agent && ! systemctl is-active "$unit" &&
        is "$(ls -d /var/lib/ghost /etc/ghost /var/log/ghost /usr/bin/ghost-agent /usr/bin/ghostctl 2>/dev/null)" ""
}

check "the service is active, ready and sees libvirt" within 60 is_active_and_ready
check "the service keeps to its limits" keeps_to_its_limits
check "a guest boots under the hardened service" guest_boots
check "the guest is not in the service's group of processes" guest_is_not_the_services
check "the guest runs on through a restart" survives_a_restart
check "a reload reads the configuration again" obeys_a_reload
check "the guest runs on through SIGKILL, and the agent comes back" survives_sigkill
check "the watchdog restarts an agent whose loop stands still" watchdog_bites
check "the log is in the journal with its fields" logs_to_the_journal
check "the guest shuts down when asked" guest_stops
check "deleting leaves nothing" guest_goes
check "a bad configuration ends the start with 78, once" refuses_a_bad_configuration
check "a purge takes everything away" goes_when_purged
journalctl -u "$unit" --no-pager >/root/journal.txt
echo "done"
