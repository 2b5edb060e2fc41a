#!/usr/bin/env bash
# Fails when an include runs up the stairs: base < net < virt, storage, heartbeat
# < agent, and the three in the middle never include each other. Also when a
# folder's library links one it may not stand on.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

declare -A may_use=(
    [base]='base'
    [net]='base|net'
    [virt]='base|net|virt'
    [storage]='base|net|storage'
    [heartbeat]='base|net|heartbeat'
    [agent]='base|net|virt|storage|heartbeat|agent'
)
rooms=${!may_use[*]}
faults=0
for room in $rooms; do
    # Every quoted include names a room from the root; files of the room itself are counted so that an empty search shows.
    includes=$(grep -rnE --include='*.hpp' --include='*.cpp' '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]('"${rooms// /|}"')/' \
        "$room" || true)
    if [[ -z $includes ]]; then
        echo "$room: no include of ours found; is it still a room?"
        faults=$((faults + 1))
    fi
    if up=$(grep -vE 'include[[:space:]]*[<"]('"${may_use[$room]}"')/' <<<"$includes"); then
        echo "$room includes what it may not stand on:"
        echo "$up"
        faults=$((faults + 1))
    fi
    if relative=$(grep -rnE --include='*.hpp' --include='*.cpp' '#[[:space:]]*include[[:space:]]*"\.\.?/' "$room"); then
        echo "$room includes by a relative path:"
        echo "$relative"
        faults=$((faults + 1))
    fi
    if links=$(grep -oE '\bghost_(base|net|virt|storage|heartbeat|agent)\b' "$room/CMakeLists.txt" | sed 's/ghost_//' |
        grep -vxE "${may_use[$room]}"); then
        echo "$room/CMakeLists.txt links: $links"
        faults=$((faults + 1))
    fi
done
# The program knows nothing of its tests.
# shellcheck disable=SC2086
if tests=$(grep -rnE --include='*.hpp' --include='*.cpp' '#[[:space:]]*include[[:space:]]*[<"]tests/' $rooms); then
    echo "the program includes its tests:"
    echo "$tests"
    faults=$((faults + 1))
fi
((faults == 0)) || exit 1
echo "floors: every include runs down"
