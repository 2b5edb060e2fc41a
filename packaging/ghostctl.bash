# bash completion for ghostctl
_ghostctl_names() { # the names in `ghostctl $* -o name`, at once or not at all
    timeout 2 ghostctl "${where[@]}" "$@" -o name 2>/dev/null
}

_ghostctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local -a words=() where=()
    local index word
    COMPREPLY=()

    # The words that are no options, and where the agent is.
    for ((index = 1; index < COMP_CWORD; ++index)); do
        word=${COMP_WORDS[index]}
        case $word in
            --socket | --agent | --cert | --key | --cacert)
                where+=("$word" "${COMP_WORDS[index + 1]:-}")
                ((++index))
                ;;
            --idempotency-key | --after | --type | --subject | --reason | --login | --stdio | --listen | --env | --forward | \
                --no-forward) ((++index)) ;;
            --) return ;; # what follows is another program's
            -o | --output | --timeout | --grace | -l | --label | --power | --owner | --name | --vcpu | --vcpus | --ram | \
                --memory-mib | --disk | --extra-disk | --network | --ssh-key | --user | --hostname | --user-data | \
                --wait-for | --remove-label | --template | --image | --file | --source | --checksum | --format) ((++index)) ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done

    case $previous in
        --socket | --cert | --key | --cacert | --file | --user-data | --ssh-key)
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            compopt -o filenames
            return
            ;;
        -o | --output)
            if [[ ${words[0]:-} == screenshot ]]; then
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                compopt -o filenames
            else
                mapfile -t COMPREPLY < <(compgen -W 'table json yaml name' -- "$current")
            fi
            return
            ;;
        --power)
            mapfile -t COMPREPLY < <(compgen -W 'running off paused suspended crashed unknown' -- "$current")
            return
            ;;
        --wait-for) mapfile -t COMPREPLY < <(compgen -W 'running address guest_ready' -- "$current") && return ;;
        --format) mapfile -t COMPREPLY < <(compgen -W 'qcow2 raw' -- "$current") && return ;;
        --type)
            # The types that stand already, and one more.
            local before=''
            [[ $current == *,* ]] && before=${current%,*},
            mapfile -t COMPREPLY < <(compgen -P "$before" -W 'vm.created vm.updated vm.power vm.deleted vm.guest_access
                operation.updated image.updated agent.updated' -- "${current##*,}")
            return
            ;;
        --subject)
            mapfile -t COMPREPLY < <(compgen -W "$(_ghostctl_names vm list) $(_ghostctl_names image list)" -- "$current")
            return
            ;;
        --template | --image)
            mapfile -t COMPREPLY < <(
                compgen -W "$(_ghostctl_names image list) $(_ghostctl_names image list --remote)" -- "$current"
            )
            return
            ;;
        --idempotency-key | --after | --reason | --login | --stdio | --listen | --env | --forward | --no-forward) return ;;
        --agent | --timeout | --grace | -l | --label | --owner | --name | --vcpu | --vcpus | --ram | --memory-mib | \
            --disk | --extra-disk | --network | --user | --hostname | --remove-label | --source | --checksum) return ;;
    esac

    local choices='' wait='--timeout --no-wait --dry-run --idempotency-key'
    if [[ $current == -* ]]; then
        case ${words[*]:0:2} in
            'vm create') choices="--name --template --image --vcpu --vcpus --ram --memory-mib --disk --extra-disk --network
                --ssh-key --user --hostname --user-data --label --owner --protected --no-start --wait-for --forward
                --guest-access $wait" ;;
            'vm update') choices="--vcpu --vcpus --ram --memory-mib --disk --label --remove-label --owner --protected
                --unprotected --forward --no-forward --guest-access --no-guest-access $wait" ;;
            'vm list') choices='--label --power --owner --name --managed --unmanaged --watch' ;;
            'vm stop' | 'vm restart') choices="--force --grace $wait" ;;
            'vm adopt') choices="--name $wait" ;;
            'vm delete' | 'orphans purge' | 'image prune') choices="--yes $wait" ;;
            'vm status') ;;
            vm\ * | 'image delete' | 'image refresh' | 'operation cancel' | 'agent undrain') choices=$wait ;;
            'agent drain') choices="--reason $wait" ;;
            'image add') choices="--file --source --checksum --format --allow-unverified $wait" ;;
            'image list') choices='--remote' ;;
            'operation wait') choices='--timeout' ;;
            console\ * | console) choices='--force --read-only' ;;
            ssh\ * | ssh) choices='--login --print' ;;
            forward\ * | forward) choices='--stdio' ;;
            vnc\ * | vnc) choices='--listen' ;;
            exec\ * | exec) choices='--timeout --env --stdin --idempotency-key' ;;
            screenshot\ * | screenshot | cp\ * | cp) ;;
            events) choices='--after --type --subject' ;;
            '') choices='--version' ;;
        esac
        choices+=' --help --output --socket --agent --cert --key --cacert'
    else
        case ${#words[@]}:${words[*]:0:2} in
            0:*) choices='status version vm console ssh forward vnc screenshot exec cp image operation resources orphans
                events agent' ;;
            1:console | 1:ssh | 1:forward | 1:vnc | 1:screenshot | 1:exec) choices=$(_ghostctl_names vm list) ;;
            *:cp\ * | *:cp)
                # A file here, or the VM's name before the colon.
                mapfile -t COMPREPLY < <(
                    compgen -f -- "$current"
                    compgen -S : -W "$(_ghostctl_names vm list)" -- "$current"
                )
                compopt -o filenames -o nospace
                return
                ;;
            1:vm) choices='list create update status start stop restart reset pause resume suspend adopt delete' ;;
            1:image) choices='list show add refresh delete prune' ;;
            1:operation) choices='list show wait cancel' ;;
            1:orphans) choices='list purge' ;;
            1:agent) choices='drain undrain' ;;
            2:vm\ list | 2:vm\ create) ;;
            2:vm\ *) choices=$(_ghostctl_names vm list) ;;
            2:image\ add) choices=$(_ghostctl_names image list --remote) ;;
            2:image\ show | 2:image\ delete | 2:image\ refresh) choices=$(_ghostctl_names image list) ;;
            2:operation\ show | 2:operation\ wait | 2:operation\ cancel) choices=$(_ghostctl_names operation list) ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
}
complete -F _ghostctl ghostctl
