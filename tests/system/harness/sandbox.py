"""A machine of the tests' own.

`enter()` replaces the running pytest by one inside new namespaces: its own mounts (what is written to /etc, /var and
/run stays in memory and goes away), network (only loopback and what libvirt makes), processes (all of them end with
the first), host name and IPC. Inside, libvirtd, QEMU and the agent run as on a fresh host, beside whatever the real
host runs, and nothing can be left behind.

Run as a program this file is that namespace's first process: it prepares the mounts, starts the command it is given,
reaps orphans (QEMU is one) and exits as the command did.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT_VARIABLE = "GHOST_SANDBOX"
PROGRAMS = ("unshare", "mount", "ip", "libvirtd", "virtlogd", "virtlockd", "virsh", "qemu-img", "openssl", "dnsmasq")


def inside():
    return ROOT_VARIABLE in os.environ


def root():
    """Directory of this run on a real disk, world-searchable since QEMU runs as a user of its own."""
    return os.environ[ROOT_VARIABLE]


def missing():
    """What keeps the sandbox from being entered, as sentences."""
    faults = []
    if os.geteuid() != 0:
        faults.append("system tests need root: they run libvirtd and QEMU in namespaces of their own")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    faults += [f"system tests need the program {name}" for name in PROGRAMS if shutil.which(name, path=path) is None]
    return faults


def enter(command):
    """Doesn't return: this process becomes the one that waits for the sandbox."""
    directory = tempfile.mkdtemp(prefix="ghost-system-")
    os.chmod(directory, 0o711)
    environment = dict(os.environ)
    environment[ROOT_VARIABLE] = directory
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["LC_ALL"] = "C.UTF-8"
    flags = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a time limit ends the sandbox and cleans up, too
    try:
        status = subprocess.run(["unshare", *flags, sys.executable, __file__, directory, *command],
                                env=environment, check=False).returncode
    finally:
        if "GHOST_KEEP" not in os.environ:
            shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.flush()
    os._exit(status if status >= 0 else 128 - status)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def make_private(tree, layers):
    """What is written there from now on stays in memory. Of overlays only two may lie on one another: where there are
    too many, as in a container or in another sandbox, it is a copy of /etc, and of /var what libvirt keeps there."""
    upper, work = os.path.join(layers, tree), os.path.join(layers, tree + ".work")
    os.mkdir(upper)
    os.mkdir(work)
    options = f"lowerdir=/{tree},upperdir={upper},workdir={work}"
    if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"/{tree}"], stderr=subprocess.DEVNULL,
                      check=False).returncode == 0:
        return
    if tree == "etc":
        subprocess.run(["cp", "-a", "/etc/.", upper], check=True)
        mount("--bind", upper, "/etc")
        return
    for path in ("/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/var/lib/ghost"):
        os.makedirs(path, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)


def make_machine(directory):
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    mount("-t", "sysfs", "sysfs", "/sys")  # this network's devices, not the host's
    layers = os.path.join(directory, "layers")
    os.mkdir(layers)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", layers)
    for tree in ("etc", "var"):
        make_private(tree, layers)
    for path in ("/run/libvirt", "/run/lock"):
        os.mkdir(path)
    # As a fresh installation: nothing of the real host's domains, networks and pools.
    for path in ("/etc/libvirt/qemu", "/etc/libvirt/storage", "/var/lib/libvirt/qemu", "/var/lib/libvirt/dnsmasq",
                 "/var/lib/libvirt/images", "/var/cache/libvirt", "/var/log/libvirt", "/var/lib/ghost", "/etc/ghost"):
        shutil.rmtree(path, ignore_errors=True)
    os.makedirs("/etc/libvirt/qemu/networks")
    os.makedirs("/var/lib/libvirt/images", mode=0o711)
    os.makedirs("/var/log/libvirt/qemu")
    os.makedirs("/var/lib/libvirt/dnsmasq")
    for path, text in (("/etc/hosts", "127.0.0.1 localhost ghost-test\n"), ("/etc/resolv.conf", "")):
        if os.path.lexists(path):
            os.remove(path)  # a link would lead out of here
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open("/etc/libvirt/libvirtd.conf", "w", encoding="utf-8") as conf:
        conf.write('auth_unix_rw = "none"\nlog_outputs = "3:stderr"\n')
    with open("/etc/libvirt/qemu.conf", "w", encoding="utf-8") as conf:
        conf.write('cgroup_controllers = []\nremember_owner = 0\nsecurity_driver = "none"\n')
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["groupadd", "--force", "--system", "ghost"], check=True)
    with open("/proc/sys/kernel/hostname", "w", encoding="utf-8") as name:
        name.write("ghost-test")


def main(directory, command):
    make_machine(directory)
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(max(os.waitstatus_to_exitcode(status), 0) or (1 if status else 0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
