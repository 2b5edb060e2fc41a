#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests; the last line counts them.
#
# Usage: sudo tests/run.sh [all|unit|component|system|package|fuzz|long]
#
# all        what follows, and format, floors and clang-tidy on what changed; unit and
#            component tests also under ASan+UBSan, those with threads under TSan
# unit       logic without I/O
# component  in one process, on memory, loopback, files and libvirt; and the whole agent under seeds
# system     the real daemon, a real libvirtd and real guests, in namespaces of their own
# package    the Debian package, installed in a clean Debian that systemd boots, with a guest
# fuzz       each target for FUZZ_SECONDS (20)
# long       fuzz targets for ten minutes each, faults that last as long, a Debian guest with cloud-init, and every
#            test under every sanitizer
set -euo pipefail

what=${1:-all}
case $what in
    all | unit | component | system | package | fuzz | long) ;;
    *)
        sed -n '4,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
if ((EUID != 0)); then
    echo "tests/run.sh: not root: packages can't be installed, and tests with libvirt and guests can't run; use sudo" >&2
    case $what in unit | fuzz) ;; *) exit 1 ;; esac
fi

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
# shellcheck source=packaging/dependencies.sh
source packaging/dependencies.sh
# shellcheck source=packaging/kvm.sh
source packaging/kvm.sh
export PATH=$PATH:/usr/sbin:/sbin
# Root reads a clone that another user owns.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$root
jobs=${GHOST_JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-20}
[[ $what != long ]] || fuzz_seconds=${FUZZ_SECONDS:-600}

results=$(mktemp -d -- "${TMPDIR:-/tmp}/ghost-tests-XXXXXX")
started=() # pids of the daemons we started
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf -- "$results"
}
trap finish EXIT
trap 'exit 130' INT TERM

headline() { printf '\n==== %s\n' "$*"; }

# Everything that is no test case of ctest's or pytest's counts as one test: its name, then its command.
check() {
    local name=$1
    shift
    headline "$name"
    if "$@"; then
        echo "passed $name" >>"$results/checks"
    else
        echo "failed $name" >>"$results/checks"
        echo "FAILED: $name"
    fi
}

# What can't even be built or started counts as one failed test, and the rest goes on.
step() { "$@" || echo "failed $*" >>"$results/checks"; }

configure_and_build() { # preset, targets...
    local preset=$1
    shift
    headline "build $preset"
    cmake --preset "$preset" >"$results/configure.log" || {
        cat "$results/configure.log"
        return 1
    }
    cmake --build --preset "$preset" -j "$jobs" -- "$@"
}

# The names of the targets of preset $1 that match the expression $2.
targets_of() {
    ninja -C "build/$1" -t targets all | sed -n 's/^\([a-z_0-9]*\): phony$/\1/p' | grep -E "^($2)$" || true
}

run_ctest() { # preset, then what ctest selects by
    local preset=$1
    shift
    headline "ctest $preset $*"
    # A failure is counted from the report; a ctest that leaves none is a failure of its own.
    ctest --test-dir "build/$preset" --output-junit "$results/ctest-$preset-$RANDOM.xml" --output-on-failure \
        --no-tests=error -j "$jobs" "$@" >"$results/ctest.log" 2>&1 || echo "FAILED: ctest $preset $*"
    grep -E '\*\*\*|Errors while|No tests were found|tests passed' "$results/ctest.log" || true
    grep -q 'tests passed' "$results/ctest.log" || {
        cat "$results/ctest.log"
        echo "failed ctest $preset $*" >>"$results/checks"
    }
    # What failed says why.
    sed -n '/\*\*\*Failed/,/^ *[0-9]*\/[0-9]* Test /p;/\*\*\*Timeout/,/^ *[0-9]*\/[0-9]* Test /p' "$results/ctest.log"
}

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$root/tests/tsan.supp:second_deadlock_stack=1}

test_targets='(unit|component)_[a-z_0-9]*'
# Where threads meet: the log's writer, lanes and the event bridge, the disk pool and the database, names looked up.
threaded_targets='(unit|component)_(base|storage|virt_lanes|net_lookup)'

build_and_run() { # preset, targets' expression, label
    local preset=$1 expression=$2 label=$3
    local -a targets
    headline "configure $preset"
    cmake --preset "$preset" >"$results/configure.log" || {
        cat "$results/configure.log"
        return 1
    }
    mapfile -t targets < <(targets_of "$preset" "$expression")
    configure_and_build "$preset" "${targets[@]}" && run_ctest "$preset" -L "$label" -R "^($expression):"
}

build_and_run_all() {
    configure_and_build dev all && run_ctest dev -L 'unit|component'
}

# The whole agent under seeds; a longer run takes ten times as many.
run_simulation() { # preset, seeds, the first of them
    local preset=$1 seeds=$2 first=$3
    [[ $what != long ]] || seeds=$((10 * seeds))
    configure_and_build "$preset" simulation && check "simulation ($preset, $seeds schedules)" \
        "build/$preset/tests/simulation/simulation" --seeds "${GHOST_SEEDS:-$seeds}" --first "$first"
}

formatted() {
    git ls-files -z --cached --others --exclude-standard -- '*.hpp' '*.cpp' |
        xargs -0 -r clang-format-19 --dry-run --Werror
}

scripts_are_clean() {
    git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run packaging/debian packaging/ghostctl.bash |
        grep -zv conffiles | xargs -0 -r shellcheck -x
}

# Sources changed against the branch's start, or on main itself against the commit before.
changed_sources() {
    local base
    base=$(git merge-base HEAD origin/main 2>/dev/null || git merge-base HEAD main 2>/dev/null || true)
    if [[ -z $base || $base == $(git rev-parse HEAD 2>/dev/null) ]]; then
        base=$(git rev-parse -q --verify HEAD~1 2>/dev/null || true)
    fi
    {
        if [[ -n $base ]]; then git diff --name-only --diff-filter=d "$base" -- '*.cpp'; fi
        git ls-files --others --exclude-standard -- '*.cpp'
    } | sort -u
}

tidied() {
    local -a sources
    mapfile -t sources < <(changed_sources | grep -vE '^tests/fuzz/')
    # Half a minute a file: a change of the whole tree is looked at in part, and says so.
    local most=${GHOST_TIDY_FILES:-12}
    if ((${#sources[@]} > most)); then
        echo "${#sources[@]} files changed; $most of them are looked at (GHOST_TIDY_FILES sets how many)"
        mapfile -t sources < <(printf '%s\n' "${sources[@]}" | head -n "$most")
    fi
    ((${#sources[@]} == 0)) || printf '%s\0' "${sources[@]}" |
        xargs -0 -n 1 -P "$jobs" timeout 300 clang-tidy-19 --quiet -p build/dev 2>"$results/tidy.log" || {
        grep -v 'warnings generated' "$results/tidy.log"
        return 1
    }
}

# A nested KVM may be there and fail at running guests: they are emulated then.
settle_kvm() {
    open_kvm
    if kvm_is_broken; then
        echo "/dev/kvm is there but can't run guests: they are emulated"
        export GHOST_TEST_VIRT_TYPE=qemu
    fi
}

start_libvirt() {
    if timeout 20 virsh -q -c qemu:///system version >/dev/null 2>&1; then return 0; fi
    if [[ -d /run/systemd/system ]]; then
        systemctl start libvirtd
    else
        mkdir -p /run/libvirt
        local daemon
        for daemon in virtlogd virtlockd libvirtd; do
            if [[ ! -e /run/$daemon.pid ]] || ! kill -0 "$(cat "/run/$daemon.pid")" 2>/dev/null; then
                "$daemon" -d -p "/run/$daemon.pid" && started=("$(cat "/run/$daemon.pid")" "${started[@]}")
            fi
        done
    fi
    for _ in {1..60}; do
        if timeout 20 virsh -q -c qemu:///system version >/dev/null 2>&1; then return 0; fi
        sleep 0.5
    done
    echo "libvirtd doesn't answer" >&2
    return 1
}

run_system() {
    configure_and_build dev ghost-agent fake-core || return 1
    headline "system"
    local -a marks=()
    [[ $what != long ]] || marks=(-m 'long or not long')
    /usr/bin/python3 -m pytest tests/system --junitxml "$results/system.xml" -q "${marks[@]}" && return 0
    # Failed tests are in the report; without one nothing ran.
    [[ -s $results/system.xml ]]
}

run_package() {
    headline "build release"
    cmake --preset release -DGHOST_TESTS=OFF >"$results/configure.log" || {
        cat "$results/configure.log"
        return 1
    }
    cmake --build --preset release -j "$jobs" || return 1
    rm -f build/release/*.deb
    cpack --config build/release/CPackConfig.cmake -B build/release >"$results/cpack.log" 2>&1 || {
        cat "$results/cpack.log"
        return 1
    }
    headline "package"
    local image=build/test-image.qcow2
    [[ -e $image ]] || packaging/build-image.sh "$image" || return 1
    tests/package/boot.sh build/release/*.deb "$image" | tee "$results/package.log"
    sed -n '/^\(passed\|failed\) /p' "$results/package.log" >>"$results/checks"
    grep -q '^passed ' "$results/package.log"
}

run_fuzz() { # preset: fuzz, or asan, whose objects are instrumented too
    local preset=$1 target
    local -a targets
    headline "configure $preset"
    cmake --preset "$preset" >/dev/null || return 1
    mapfile -t targets < <(targets_of "$preset" 'fuzz_[a-z_0-9]*')
    ((${#targets[@]} > 0)) || return 1
    configure_and_build "$preset" "${targets[@]}" || return 1
    for target in "${targets[@]}"; do
        check "$target for $fuzz_seconds s" fuzz_one "$preset" "$target"
    done
}

fuzz_one() { # preset, target
    local preset=$1 target=$2
    local program seeds=tests/fuzz/corpus/$target
    local -a options=(-max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 -verbosity=0
        -artifact_prefix="$root/build/$preset/$target-")
    program=$(find "build/$preset" -type f -name "$target" -perm -u+x | head -n 1)
    mkdir -p "$results/corpus-$target"
    case $target in fuzz_session | fuzz_target) options+=(-dict=tests/fuzz/http.dict) ;; esac
    if [[ -d $seeds ]]; then
        "$program" "${options[@]}" "$results/corpus-$target" "$seeds"
    else
        "$program" "${options[@]}" "$results/corpus-$target"
    fi
}

# Adds up reports and checks: prints the last line and fails when anything failed or nothing ran.
summary() {
    headline "result"
    /usr/bin/python3 - "$results" <<'END'
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

passed = failed = skipped = 0
for report in sorted(pathlib.Path(sys.argv[1]).glob("*.xml")):
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"} or case.get("status") == "fail":
            failed += 1
            print("FAILED:", case.get("classname"), case.get("name"))
        elif "skipped" in kinds or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
checks = pathlib.Path(sys.argv[1], "checks")
for line in checks.read_text().splitlines() if checks.exists() else []:
    state, name = line.split(" ", 1)
    passed += state == "passed"
    failed += state == "failed"
    if state == "failed":
        print("FAILED:", name)
if skipped:
    print(f"{skipped} skipped")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
END
}

headline "packages"
install_packages "${build_packages[@]}" "${test_packages[@]}"
case $what in
    unit | fuzz) ;;
    *)
        install_packages "${run_packages[@]}" "${image_packages[@]}"
        settle_kvm
        ;;
esac

case $what in
    unit)
        step build_and_run dev 'unit_[a-z_0-9]*' unit
        ;;
    component)
        step start_libvirt
        step build_and_run dev 'component_[a-z_0-9]*' component
        step run_simulation dev 2000 1
        ;;
    system) step run_system ;;
    package) step run_package ;;
    fuzz) step run_fuzz fuzz ;;
    all | long)
        check "format (clang-format)" formatted
        check "scripts (shellcheck)" scripts_are_clean
        check "floors (includes run down only)" tests/floors.sh
        step start_libvirt
        step build_and_run_all
        step run_simulation dev 2000 1
        check "clang-tidy on what changed" tidied
        step run_system
        step run_package
        step build_and_run asan "$test_targets" 'unit|component'
        step run_simulation asan 300 1000000
        if [[ $what == long ]]; then
            step build_and_run tsan "$test_targets" 'unit|component'
        else
            step build_and_run tsan "$threaded_targets" 'unit|component'
        fi
        step run_fuzz asan
        ;;
esac
summary
