#!/usr/bin/env bash
# From a clone to a running guest on Debian 12: installs, builds, starts libvirt
# and an agent of its own, makes throwaway certificates and a small image, and
# boots a VM from it. With --core it also starts a stand-in for Ghost Core, shows
# the agent's first beat there and has Core make a second VM.
#
# Usage: sudo packaging/quickstart.sh [--image FILE] [--core]    start, or go on with what runs
#        sudo packaging/quickstart.sh stop                       take all of it away again
#
# Everything it makes is in GHOST_QUICKSTART_DIR (default /var/lib/ghost-quickstart)
# but for the build in build/release and the image cache in /var/cache/ghost-agent.
# GHOST_QUICKSTART_PORT (9092) is the API's port on 127.0.0.1, the next one below
# it the metrics', the next one above it Core's, and the one above that Core's page.
set -euo pipefail

SECONDS=0
clone=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
home=${GHOST_QUICKSTART_DIR:-/var/lib/ghost-quickstart}
port=${GHOST_QUICKSTART_PORT:-9092}
vm=hello
core_vm=from-core
core_port=$((port + 1))
core_page=http://127.0.0.1:$((port + 2))
agent=$clone/build/release/ghost-agent
fake_core=$clone/build/release/tests/fakes/fake-core
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C.UTF-8

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}
usage() {
    sed -n '7,8s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

image=
with_core=no
verb=start
while (($# > 0)); do
    case $1 in
        stop) verb=stop ;;
        --image)
            (($# > 1)) || usage
            image=$(realpath -- "$2") || fail "there is no image $2"
            [[ -r $image ]] || fail "the image $2 can't be read"
            shift
            ;;
        --core) with_core=yes ;;
        *) usage ;;
    esac
    shift
done
((EUID == 0)) || fail "needs root, for packages, libvirt and /var/lib: sudo packaging/quickstart.sh"
[[ $home == /* ]] || fail "GHOST_QUICKSTART_DIR must be an absolute path"
home=$(realpath -m -- "$home") # as libvirt and QEMU name it
[[ $home != / ]] || fail "GHOST_QUICKSTART_DIR can't be /"
marker=$home/made-by-quickstart
socket=$home/agent.sock

# ---- asking ----
over_socket() { # method, path, then what curl takes
    curl -sS --max-time 320 --unix-socket "$socket" -X "$1" "http://localhost$2" "${@:3}"
}
over_tls() {
    curl -sS --max-time 320 --cert "$home/certs/client.crt" --key "$home/certs/client.key" \
        --cacert "$home/certs/ca.crt" -X "$1" "https://127.0.0.1:$port$2" "${@:3}"
}
status_of() { # the HTTP status alone; 000 when nobody answers
    over_socket GET "$1" -o /dev/null -w '%{http_code}' --max-time 10 2>/dev/null || true
}
hypervisor() { timeout 20 virsh -q -c qemu:///system "$@"; }
is_running() { # pid file, program's name
    local pid
    pid=$(cat "$1" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]] &&
        ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null # dead, and nobody has taken note yet
}
has_ended() { # pid file, program's name: within half a minute
    for _ in {1..150}; do
        is_running "$1" "$2" || return 0
        sleep 0.2
    done
    return 1
}
end_process() { # pid file, program's name: asks, waits, insists
    local signal
    for signal in TERM KILL; do
        ! is_running "$1" "$2" || kill "-$signal" "$(cat "$1")" 2>/dev/null || true # it may have ended just now
        if has_ended "$1" "$2"; then
            rm -f -- "$1"
            return 0
        fi
    done
    fail "the process $(cat "$1") ($2) doesn't end"
}

# ---- libvirt ----
answers() {
    for _ in {1..60}; do
        if hypervisor version >/dev/null 2>&1; then return 0; fi
        sleep 0.5
    done
    return 1
}
start_libvirt() {
    if hypervisor version >/dev/null 2>&1; then return 0; fi
    say "starting libvirt"
    if [[ -d /run/systemd/system ]]; then
        touch "$home/libvirt-by-systemd"
        systemctl start libvirtd.service
    else
        local daemon
        mkdir -p /run/libvirt
        for daemon in virtlogd virtlockd libvirtd; do
            # One that somebody else runs is used as it is; one in a container, or dead and not yet buried, isn't.
            pgrep -x -r D,R,S,T,I --ns $$ --nslist pid "$daemon" >/dev/null || "$daemon" -d -p "$home/$daemon.pid"
        done
    fi
    answers || fail "libvirtd doesn't answer at qemu:///system"
}

# ---- stop ----
# Asked for once and kept: a reader that leaves a pipe early makes virsh fail.
is_listed() { # name, then what virsh is to list
    local names
    names=$(hypervisor "${@:2}" --name) || fail "libvirt doesn't tell of its objects"
    grep -qE "^$1 *\$" <<<"$names"
}
# The UUIDs of domains with a file of ours.
our_domains() {
    local all domain document
    all=$(hypervisor list --all --uuid) || return 1
    for domain in $all; do
        if ! document=$(hypervisor dumpxml "$domain" 2>&1); then
            [[ $document == *"failed to get domain"* ]] && continue # it is gone meanwhile
            printf '%s\n' "$document" >&2
            return 1
        fi
        if [[ $document == *"$home/"* ]]; then printf '%s\n' "$domain"; fi
    done
}
# QEMU's processes with a file of ours open, libvirt's or not.
our_guests() {
    local pid link path
    for pid in $(pgrep '^qemu'); do
        for link in "/proc/$pid/fd"/*; do
            path=$(readlink -- "$link") || continue
            # Another mount namespace may have another file of that name.
            if [[ $path == "$home/"* && $link -ef $path ]]; then
                printf '%s\n' "$pid"
                break
            fi
        done
    done
}
# Also those that no agent is left to delete.
remove_domains() {
    local all domain state
    all=$(our_domains) || fail "libvirt doesn't tell of its VMs; nothing of $home is removed"
    for domain in $all; do
        state=$(hypervisor domstate "$domain") || continue # and is looked for again below
        [[ $state == "shut off" ]] || hypervisor destroy "$domain" >/dev/null || continue
        hypervisor undefine "$domain" --nvram --managed-save --snapshots-metadata --checkpoints-metadata >/dev/null ||
            continue
    done
    all=$(our_domains) || fail "libvirt doesn't tell of its VMs; nothing of $home is removed"
    [[ -z $all ]] || fail "VMs with disks in $home are still there, so it stays. For each of them:" \
        "virsh -c qemu:///system destroy UUID; virsh -c qemu:///system undefine UUID; then stop again:" "${all//$'\n'/ }"
    all=$(our_guests)
    [[ -z $all ]] || fail "QEMU still uses files in $home, so it stays. End these processes and stop again:" \
        "${all//$'\n'/ }"
}
stop() {
    [[ -d $home ]] || { say "there is nothing to stop" && exit 0; }
    [[ -f $marker ]] || fail "$home was not made by this script; it stays as it is"
    # Guests are libvirt's: without it nobody ends them, and their disks can't go.
    start_libvirt
    local all domain name
    all=$(our_domains) || fail "libvirt doesn't tell of its VMs; nothing of $home is removed"
    for domain in $all; do
        name=$(hypervisor domname "$domain") || continue
        printf '%s\n' "$name" >>"$home/vm-names" # for one who stops again
    done
    if is_running "$home/agent.pid" ghost-agent; then
        say "deleting the VMs"
        for name in "$vm" "$core_vm"; do
            # What it can't delete is removed below.
            over_socket DELETE "/v1/vms/$name?wait=60" -o /dev/null || true
        done
        say "stopping the agent"
        end_process "$home/agent.pid" ghost-agent
    fi
    end_process "$home/core.pid" fake-core
    remove_domains
    if is_listed ghost-quickstart pool-list; then
        hypervisor pool-destroy ghost-quickstart >/dev/null || fail "the storage pool ghost-quickstart can't be stopped"
    fi
    if is_listed ghost-quickstart pool-list --all; then
        hypervisor pool-undefine ghost-quickstart >/dev/null || fail "the storage pool ghost-quickstart can't be removed"
    fi
    if [[ -f $home/network-was-off ]] && is_listed default net-list; then
        hypervisor net-destroy default >/dev/null || fail "the network default can't be stopped"
    fi
    if [[ -f $home/network-was-absent ]] && is_listed default net-list --all; then
        hypervisor net-undefine default >/dev/null || fail "the network default can't be removed"
    fi
    if [[ -f $home/libvirt-by-systemd ]]; then
        systemctl stop libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket ||
            fail "systemd can't stop libvirtd"
    fi
    local daemon
    for daemon in libvirtd virtlockd virtlogd; do end_process "$home/$daemon.pid" "$daemon"; done
    # libvirt leaves a log of each.
    [[ ! -f $home/vm-names ]] || while read -r name; do rm -f -- "/var/log/libvirt/qemu/$name.log"; done <"$home/vm-names"
    rm -rf -- "$home"
    say "stopped; the image cache in /var/cache/ghost-agent and build/ stay"
}
if [[ $verb == stop ]]; then
    stop
    exit 0
fi

# ---- start ----
[[ ! -e $home || -f $marker ]] || fail "$home is there and was not made by this script"
[[ $(. /etc/os-release && echo "${ID:-} ${VERSION_ID:-}") == "debian 12" ]] ||
    say "this is not Debian 12; going on, but packages may be called otherwise"

# One that runs goes on being the agent's.
! is_running "$home/core.pid" fake-core || with_core=yes

say "packages"
# shellcheck source=packaging/dependencies.sh
source "$clone/packaging/dependencies.sh"
packages=("${build_packages[@]}" "${run_packages[@]}" openssh-client)
[[ -n $image ]] || packages+=("${image_packages[@]}")
install_packages "${packages[@]}"

targets=(ghost-agent)
[[ $with_core == no ]] || targets+=(fake-core)
log=$clone/build/quickstart.log
mkdir -p -- "$clone/build"
: >"$log"
if [[ -x $agent ]]; then say "building; log: $log"; else say "building, which takes minutes; log: $log"; fi
tell_progress() { # until it is killed, or we are
    local second now told=''
    for ((second = 1; ; ++second)); do
        sleep 1
        kill -0 $$ 2>/dev/null || return 0
        ((second % 20 == 0)) || continue
        now=$(tail -n 20 -- "$log" | sed -n 's/^\[\([0-9]*\)\/\([0-9]*\)\].*/\1 of \2/p' | tail -n 1)
        [[ -z $now || $now == "$told" ]] || say "building: step $now"
        told=$now
    done
}
build() {
    cd -- "$clone" && cmake --preset release -DGHOST_TESTS=OFF -DGHOST_FAKE_CORE=ON &&
        cmake --build --preset release --target "${targets[@]}"
}
tell_progress &
teller=$!
built=yes
build >"$log" 2>&1 || built=no
kill "$teller" 2>/dev/null || true
wait "$teller" 2>/dev/null || true
if [[ $built == no ]]; then
    tail -n 40 -- "$log" >&2
    fail "the build failed; all of its log is $log"
fi

mkdir -p -- "$home"
chmod 711 "$home" # QEMU's own user passes through to the disks
touch -- "$marker"

# shellcheck source=packaging/kvm.sh
source "$clone/packaging/kvm.sh"
open_kvm
virt_type=auto
if kvm_is_broken; then
    say "/dev/kvm is there but can't run guests: they are emulated, which is slow"
    virt_type=qemu
fi
start_libvirt
# What the agent does to the network is undone by stop.
if ! is_running "$home/agent.pid" ghost-agent; then
    if ! hypervisor net-info default >/dev/null 2>&1; then
        touch "$home/network-was-absent" "$home/network-was-off"
    elif ! is_listed default net-list; then
        touch "$home/network-was-off"
    fi
fi

# A CA, the agent's certificate and a client's, for a month.
make_certificates() {
    local name usage
    if openssl x509 -checkend 86400 -noout -in "$home/certs/client.crt" >/dev/null 2>&1; then return 0; fi
    say "certificates"
    rm -rf -- "$home/certs"
    (
        umask 077
        mkdir -- "$home/certs"
        cd -- "$home/certs"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=ghost quickstart CA' \
            -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout ca.key -out ca.crt
        for name in agent client; do
            if [[ $name == agent ]]; then usage=serverAuth; else usage=clientAuth; fi
            openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name.key \
                -out $name.csr
            printf '%s\n' 'basicConstraints=CA:FALSE' 'keyUsage=critical,digitalSignature' "extendedKeyUsage=$usage" \
                'subjectAltName=IP:127.0.0.1,DNS:localhost' >$name.ext
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 29 -extfile $name.ext \
                -out $name.crt
            rm -f $name.csr $name.ext
        done
    ) >/dev/null 2>&1 || fail "openssl can't make certificates in $home/certs"
    made_certificates=yes
}
made_certificates=no
make_certificates

# ---- the stand-in for Core ----
start_core() {
    if is_running "$home/core.pid" fake-core; then
        if [[ $(readlink "/proc/$(cat "$home/core.pid")/exe") == "$fake_core" ]]; then return 0; fi
        end_process "$home/core.pid" fake-core
    fi
    say "starting a stand-in for Core"
    mkdir -p -- "$home/core"
    chmod 700 "$home/core"
    [[ -s $home/core/token ]] || (umask 077 && openssl rand -hex 16 >"$home/core/token")
    setsid "$fake_core" --dir "$home/core" --listen "127.0.0.1:$core_port" --page "${core_page#http://}" --ttl 10 \
        --token - <"$home/core/token" >"$home/core/ready.json" 2>>"$home/core.log" &
    echo $! >"$home/core.pid"
    for _ in {1..100}; do
        if jq -e .url "$home/core/ready.json" >/dev/null 2>&1; then return 0; fi
        if ! kill -0 "$(cat "$home/core.pid")" 2>/dev/null; then break; fi
        sleep 0.1
    done
    tail -n 20 "$home/core.log" >&2
    fail "the stand-in for Core doesn't start; its log is $home/core.log"
}
at_core() { # path, then what curl takes
    curl -sS --max-time 10 "$core_page$1" "${@:2}"
}
await_beat() {
    local told=
    for _ in {1..240}; do
        told=$(at_core / | jq -r '.agents[] | select(.beats > 0) | "the agent \(.name): beat \(.seq), " +
            "\(.vms | length) VMs, \(.resources.memory_mib.free) MiB of memory free"' 2>/dev/null | head -n 1) || true
        [[ -z $told ]] || break
        sleep 0.5
    done
    if [[ -z $told ]]; then
        over_socket GET /health | jq .checks >&2 || true
        at_core / | jq .violations >&2 || true
        fail "Core has heard nothing after two minutes; the agent's log is $home/agent.log"
    fi
    say "Core hears from $told"
}
create_by_core() {
    if [[ $(status_of "/v1/vms/$core_vm") == 200 ]]; then
        say "the VM that Core asked for is there already: $core_vm"
        return 0
    fi
    local id command state=
    id=$(printf '{"kind": "vm.create", "params": {"name": "%s", "spec": {"image": "tiny", "vcpus": 1, %s}}}' "$core_vm" \
        '"memory_mib": 256, "disk_gib": 1' |
        at_core /commands -H 'Content-Type: application/json' --data-binary @- | checked | jq -re .id) ||
        fail "Core doesn't take the command"
    say "Core asks for the VM $core_vm"
    for _ in {1..600}; do
        command=$(at_core "/commands/$id") || true
        state=$(jq -r '.state // empty' <<<"$command" 2>/dev/null) || true
        case $state in succeeded | failed | rejected) break ;; esac
        sleep 0.5
    done
    if [[ $state != succeeded ]]; then
        jq -r '.problem // {} | "\(.title // "no answer"): \(.detail // "")"' <<<"$command" >&2 || true
        fail "Core's command ended as '${state:-nothing}'; the agent's log is $home/agent.log"
    fi
    over_tls GET "/v1/vms/$core_vm" | jq -re '"\(.name): \(.status.power), \(.spec.vcpus) vCPU, \(.spec.memory_mib) MiB"' \
        >"$home/core/made" || fail "the VM that Core asked for isn't there"
    say "the agent did it: $(cat "$home/core/made")"
    for _ in {1..60}; do
        if at_core / | jq -e --arg name "$core_vm" 'any(.agents[].vms[]; .name == $name)' >/dev/null 2>&1; then
            say "and Core sees it"
            return 0
        fi
        sleep 0.5
    done
    fail "Core doesn't see the VM $core_vm after half a minute; the agent's log is $home/agent.log"
}
[[ $with_core == no ]] || start_core

core_url=
core_section=
if [[ $with_core == yes ]]; then
    core_url="
  api_url: https://127.0.0.1:$core_port"
    core_section="
core:
  enroll_token: $(cat "$home/core/token")
  tls_ca: $home/core/ca.crt"
fi
config_before=$(cat "$home/agent.yaml" 2>/dev/null || true)
(umask 077 && : >>"$home/agent.yaml") # Core's token stands in it
chmod 600 "$home/agent.yaml"
cat >"$home/agent.yaml" <<END
state_dir: $home/state
agent:
  name: quickstart$core_url
api:
  listen_addr: 127.0.0.1:$port
  socket: $socket
  socket_group: root
  tls_cert: $home/certs/agent.crt
  tls_key: $home/certs/agent.key
  tls_ca: $home/certs/ca.crt
metrics:
  listen_addr: 127.0.0.1:$((port - 1))
libvirt:
  virt_type: $virt_type
  storage_pool: ghost-quickstart
resources: # a trial on any PC: little is kept back
  reserved_cpu: 0
  reserved_ram_gb: 0.5
  reserved_disk_gb: 1
logging:
  format: text$core_section
END

ready=
why_not_ready=
ask_ready() {
    local answer
    answer=$(over_socket GET /ready -w '\n%{http_code}' --max-time 10 2>/dev/null) || true
    ready=${answer##*$'\n'}
    why_not_ready=$(jq -r '.reason // empty' <<<"${answer%$'\n'*}" 2>/dev/null) || true
}
is_drained() { [[ $why_not_ready == *"/v1/agent/undrain"* ]]; }
start_agent() {
    if is_running "$home/agent.pid" ghost-agent; then
        # A program built anew, new certificates or settings want a new process; the VMs don't notice.
        if [[ $made_certificates == no && $(cat "$home/agent.yaml") == "$config_before" &&
            $(readlink "/proc/$(cat "$home/agent.pid")/exe") == "$agent" ]]; then return 0; fi
        end_process "$home/agent.pid" ghost-agent
    fi
    say "starting the agent"
    setsid "$agent" --config "$home/agent.yaml" </dev/null >>"$home/agent.log" 2>&1 &
    echo $! >"$home/agent.pid"
    for _ in {1..300}; do
        ask_ready
        if [[ $ready == 200 ]] || is_drained; then return 0; fi
        if ! is_running "$home/agent.pid" ghost-agent && ! kill -0 "$(cat "$home/agent.pid")" 2>/dev/null; then break; fi
        sleep 0.2
    done
    # Without what we asked.
    { grep -v ' path=/ready ' "$home/agent.log" || true; } | tail -n 20 >&2
    fail "the agent doesn't get ready${why_not_ready:+: $why_not_ready}; its log is $home/agent.log"
}
start_agent
ask_ready
! is_drained || say "the agent is drained and makes no VMs; this ends that:" \
    "sudo $clone/build/release/ghostctl --socket $socket agent undrain"
[[ $with_core == no ]] || await_beat

# Passes an answer on; a problem ends the script with its sentence.
checked() {
    local answer
    answer=$(cat)
    if jq -e '(.type? // "") | startswith("urn:ghost:problem:")' >/dev/null 2>&1 <<<"$answer"; then
        jq -r '"\(.title // .code): \(.detail // "")"' <<<"$answer" >&2
        return 1
    fi
    printf '%s\n' "$answer"
}
if [[ $(status_of /v1/images/tiny) != 200 ]]; then
    if [[ -z $image ]]; then
        say "building a small image from Debian packages"
        image=$home/tiny.qcow2
        "$clone/packaging/build-image.sh" "$image" || fail "the image can't be built"
    fi
    say "importing the image"
    jq -n --arg source "file://$image" '{name: "tiny", source: $source}' |
        over_socket POST '/v1/images?wait=300' -H 'Content-Type: application/json' --data-binary @- |
        checked >/dev/null || fail "the image can't be imported"
    [[ $(status_of /v1/images/tiny) == 200 ]] || fail "the image isn't there after its import"
    [[ $image != "$home/tiny.qcow2" ]] || rm -f -- "$image"
elif [[ -n $image ]]; then
    say "the image is there already, from an earlier run; for $image, stop first"
fi

if [[ $(status_of "/v1/vms/$vm") != 200 ]]; then
    say "creating the VM $vm"
    rm -f -- "$home/ssh-key" "$home/ssh-key.pub"
    ssh-keygen -q -t ed25519 -N '' -C quickstart -f "$home/ssh-key"
    jq -n --arg name "$vm" --rawfile key "$home/ssh-key.pub" \
        '{$name, spec: {image: "tiny", vcpus: 1, memory_mib: 256, disk_gib: 1,
                        cloud_init: {user: "ghost", ssh_authorized_keys: [$key | rtrimstr("\n")]}}}' |
        over_tls POST '/v1/vms?wait=300' -H 'Content-Type: application/json' --data-binary @- |
        checked >/dev/null || fail "the VM can't be created; the agent's log is $home/agent.log"
elif [[ $(over_tls GET "/v1/vms/$vm" | jq -r .status.power) == off ]]; then
    say "starting the VM $vm"
    over_tls POST "/v1/vms/$vm/start?wait=120" | checked >/dev/null || fail "the VM can't be started"
fi

say "waiting for the guest's address"
address=
for _ in {1..360}; do
    address=$(over_tls GET "/v1/vms/$vm" | jq -r '.status.addresses[0] // empty' 2>/dev/null || true)
    [[ -z $address ]] || break
    sleep 0.5
done
if [[ -z $address ]]; then
    over_tls GET "/v1/vms/$vm" | jq .status >&2 || true
    fail "the guest has no address after three minutes; it may not have booted. The agent's log is $home/agent.log"
fi

[[ $with_core == no ]] || create_by_core

minutes=$((SECONDS / 60))
settings=
for name in GHOST_QUICKSTART_DIR GHOST_QUICKSTART_PORT; do
    [[ -z ${!name:-} ]] || settings+="$name=${!name@Q} "
done
core_words=
if [[ $with_core == yes ]]; then
    core_words="
What Core knows, and how it asks for something:
  curl -s $core_page | jq
  curl -s $core_page/commands --json '{\"kind\": \"vm.stop\", \"target\": \"$core_vm\"}'
"
fi
cat <<END

The VM $vm runs and has the address $address (after $minutes min $((SECONDS % 60)) s).

List the VMs over HTTPS with the client certificate:
  curl --cert $home/certs/client.crt --key $home/certs/client.key --cacert $home/certs/ca.crt https://127.0.0.1:$port/v1/vms
or on this machine:
  export PATH=\$PATH:$clone/build/release GHOST_SOCKET=$socket
  ghostctl vm list

A way into it, through the agent (the serial console is left with Ctrl-]):
  ghostctl console $vm
  ghostctl ssh $vm -- -i $home/ssh-key
$core_words
Stop all of it:
  sudo $settings$clone/packaging/quickstart.sh stop
END
