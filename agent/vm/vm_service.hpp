// The rules of a VM's life. Each change is checked here, journalled as an
// operation, and carried out in steps; answers come from the index.
#pragma once

#include "agent/host/capacity.hpp"
#include "agent/host/drain.hpp"
#include "agent/images/image_service.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/operations/steps.hpp"
#include "agent/vm/observer.hpp"
#include "agent/vm/vm_document.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/context.hpp"
#include "storage/volumes.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <optional>
#include <set>
#include <string>

namespace ghost::agent {

struct StopOptions {
    bool force = false;
    std::chrono::seconds timeout{30};  // for the guest; then its power is cut
};
// In an operation's plan, and back, for one that is gone on with: of its timeout what is left at `now`.
[[nodiscard]] boost::json::object to_plan(const StopOptions& options);
[[nodiscard]] StopOptions stop_options_left(const Operation& operation, base::Wall now);

// What a VmService works with; all of it outlives the service.
struct VmParts {
    VmIndex& index;
    virt::Hypervisor& hypervisor;
    Observer& observer;
    OperationService& operations;
    ImageService& images;
    Capacity& capacity;
    const Drain& drain;
    storage::Volumes& volumes;
    storage::Files& files;
    storage::StateStore& store;
    base::Clock& clock;
    base::Random& random;
    base::Log& log;
};

// Where new VMs' files go, and whose VMs they are.
struct VmPlacement {
    std::string disks;         // directory of overlays, extra disks and seeds; empty while it isn't known
    std::string consoles;      // directory of serial console logs
    std::string installation;  // goes into each VM's record
};

// Every change answers with its operation, or an error and then nothing has happened: not_found, forbidden (not
// managed), protected, state_conflict (facts: state, allowed), operation_in_progress, precondition_failed,
// insufficient_*, hypervisor_unavailable, draining (of create and adopt also while the node is drained).
class VmService {
public:
    using Begun = boost::asio::awaitable<base::Result<OperationService::Ptr>>;
    // The generations an If-Match named, any of which will do; empty: whatever it is.
    using IfMatch = std::vector<std::uint64_t>;

    VmService(VmParts parts, VmPlacement placement) : p_(parts), placement_(std::move(placement)) {}

    void restore(const std::vector<storage::VmRow>& rows);
    // Writes down a VM that was recognised by its domain.
    [[nodiscard]] boost::asio::awaitable<void> remember(std::string id);
    // VMs' new documents among `changes` become what the VMs are now.
    void renew(storage::Changes& changes) const;
    // Takes away a domain that outlived its VM, with whatever of its files is left.
    [[nodiscard]] boost::asio::awaitable<void> remove_leftover(Vm vm);
    // Those that couldn't be taken away yet, by id.
    [[nodiscard]] const std::map<std::string, Vm>& leftovers() const noexcept { return leftovers_; }
    // Where the disks of VMs created from now on go.
    void use_disk_directory(std::string path) { placement_.disks = std::move(path); }
    // Goes on with an operation that a stop or a crash interrupted: a create from where it was, a delete to its end, a
    // stop in what is left of its time, a suspend that was saving; a change of the spec is applied, a restart that has
    // asked for or taken the power gives it back. What the VM turns out to be already (off, running, paused, suspended)
    // has succeeded. All else ends as interrupted, with the VM as it is observed and its wanted power as before.
    void recover(const Operation& operation);

    [[nodiscard]] Begun create(base::Context context, CreateVm request);
    [[nodiscard]] Begun update(base::Context context, std::string id, VmPatch patch, IfMatch match);
    [[nodiscard]] Begun remove(base::Context context, std::string id, IfMatch match);
    [[nodiscard]] Begun start(base::Context context, std::string id, IfMatch match);
    [[nodiscard]] Begun stop(base::Context context, std::string id, StopOptions options, IfMatch match);
    [[nodiscard]] Begun restart(base::Context context, std::string id, StopOptions options, IfMatch match);
    [[nodiscard]] Begun reset(base::Context context, std::string id, IfMatch match);
    [[nodiscard]] Begun pause(base::Context context, std::string id, IfMatch match);
    [[nodiscard]] Begun resume(base::Context context, std::string id, IfMatch match);
    [[nodiscard]] Begun suspend(base::Context context, std::string id, IfMatch match);

    // Takes a domain over that others defined; `name`: empty, its own. Also validation_failed: a name is needed.
    [[nodiscard]] Begun adopt(base::Context context, std::string id, std::string name);
    // Starts what is wanted on and is to come back (autostart) after a boot of the host, and waits until that is done.
    [[nodiscard]] boost::asio::awaitable<void> start_after_boot();

    // Whether changes are taken: the hypervisor is connected, was read, and answers. Error: hypervisor_unavailable.
    [[nodiscard]] base::Result<void> ready_for_work() const;

    std::function<void()> on_created;
    std::function<void(const Vm&)> on_deleted;

private:
    using Done = boost::asio::awaitable<base::Result<void>>;

    // A change of the stored record, applied to whatever the record is when it happens.
    using Edit = std::function<void(Vm&)>;
    using Body = std::function<boost::asio::awaitable<base::Result<void>>(OperationControl&)>;
    struct Verb {
        std::string kind;
        bool exclusive = true;
        bool cancellable = false;
        Edit edit = {};      // journalled with the operation's acceptance; empty: the record stays
        Edit rollback = {};  // applied and journalled if the operation fails; empty: the record stays as edited
        bool claim = false;  // counts as running while the operation runs
        // What it is to come to: judged by this when the hypervisor went away before it answered; empty: by its error.
        std::function<bool(const Vm&)> reached = {};
        boost::json::object plan = {};  // what going on with it after a crash needs
        std::vector<std::string> would = {};
        boost::json::object needs = {};
    };
    Begun begin(base::Context context, const Vm& vm, Verb verb, Body body);

    Done judge_by_truth(OperationControl& control, std::string id, std::function<bool(const Vm&)> reached,
                        base::Result<void> told);
    base::Result<void> reachable() const;  // but for what hangs in the lanes
    base::Result<const Vm*> changeable(const std::string& id, const IfMatch& match, bool passes_queues = false) const;
    [[nodiscard]] storage::VmRow new_row(const std::string& id) const;
    [[nodiscard]] storage::UpdateVm changed_row(const std::string& id) const;
    [[nodiscard]] std::string document_of(const Vm& vm) const;
    void journal(Outcome& outcome, const std::string& id) const;

    boost::asio::awaitable<Outcome> go_on(OperationControl& control, std::string id);

    // create
    [[nodiscard]] base::Result<Vm> plan(const CreateVm& request) const;
    std::vector<Step> create_steps(OperationControl& control, std::string id, std::string user_data, WaitFor wait_for);
    boost::asio::awaitable<Outcome> run_create(OperationControl& control, std::string id, std::string user_data,
                                               WaitFor wait_for);
    boost::asio::awaitable<Outcome> resume_create(OperationControl& control, std::string id);
    boost::asio::awaitable<void> settle_undone(Outcome& outcome, std::string id);
    [[nodiscard]] base::Result<Vm> admissible(const CreateVm& request) const;
    [[nodiscard]] Vm as_planned(const Vm& vm) const;
    Done take_image(OperationControl& control, std::string id);
    Done write_seed(Vm vm, std::string user_data);
    Done make_disks(Vm vm);
    boost::asio::awaitable<bool> disks_are_there(Vm vm);
    Done remove_disks(Vm vm);
    Done remove_disk(Vm vm, std::string path);
    Done define(Vm vm, virt::Hypervisor::Stalled stalled);
    Done ensure_networks(OperationControl& control, Vm vm);
    Done wait_for_address(std::string id);
    Done wait_for_guest(std::string id);

    // delete
    boost::asio::awaitable<Outcome> run_remove(OperationControl& control, std::string id);
    // `whole`: turned false once files of it are deleted.
    Done remove_once(OperationControl& control, Vm vm, bool& whole);
    boost::asio::awaitable<void> keep(Outcome& outcome, std::string id, Phase phase);
    Done take_away(Vm vm);
    Done remove_files(Vm vm);
    Done remove_console(Vm vm);

    // adopt
    boost::asio::awaitable<Outcome> run_adopt(OperationControl& control, std::string id);
    boost::asio::awaitable<Outcome> try_to_adopt(OperationControl& control, std::string id);
    // already_exists, when a VM or domain other than this has the name or is about to.
    [[nodiscard]] std::optional<base::Error> name_taken(const std::string& name, std::string_view by_other_than) const;
    void hold_name(const Operation& adoption);
    boost::asio::awaitable<base::Result<virt::DomainInfo>> look_until_known(OperationControl& control, std::string id);
    boost::asio::awaitable<bool> carries_record(OperationControl& control, std::string id, std::string record);
    boost::asio::awaitable<base::Result<Vm>> plan_adoption(OperationControl& control, std::string id);

    // power
    boost::asio::awaitable<std::optional<base::Result<void>>> go_on_with_power(OperationControl& control,
                                                                               std::string id);
    [[nodiscard]] static bool restart_is_halfway(const OperationControl& control);
    Done finish_restart(OperationControl& control, std::string id);
    Done power_on(OperationControl& control, std::string id);
    Done power_off(OperationControl& control, std::string id, StopOptions options);
    Done save(OperationControl& control, std::string id);
    Done save_to_the_end(OperationControl& control, std::string id);
    boost::asio::awaitable<base::Result<bool>> ask_to_shut_down(OperationControl& control, std::string id,
                                                                base::Duration limit);
    Done apply_growth(std::string id);
    // Whether it runs, after a start that somebody else is still busy with has come to its end.
    boost::asio::awaitable<bool> has_come_up(std::string id);
    boost::asio::awaitable<bool> await_power(std::string id, std::function<bool(const Vm&)> holds,
                                             base::Duration limit);
    [[nodiscard]] base::Result<void> fits_to_grow(const Vm& vm, const VmPatch& patch) const;
    [[nodiscard]] base::Result<void> fits_to_start(const Vm& vm) const;

    Begun start_for_boot(std::string id, base::Instant deadline);

    // update
    Done apply_spec(OperationControl& control, std::string id);
    Done apply_update(OperationControl& control, std::string id, VmPatch patch, bool record_changed);

    VmParts p_;
    VmPlacement placement_;
    // A VM's record as it was before changes that aren't accepted yet, and how many of those there are.
    struct Unaccepted {
        std::size_t changes = 0;
        Vm before;
    };
    void settle_change(const std::string& id, bool accepted);
    std::map<std::string, Unaccepted> unaccepted_;
    std::map<std::string, Vm> leftovers_;
    std::set<std::string> leaving_;                               // leftovers that are just being taken away
    std::map<std::string, std::string, std::less<>> names_held_;  // by adoptions under way, name -> VM
    std::set<std::string> becoming_ready_;                        // the ends of their creates are being written
};

// Raises the generation when that is news.
void want_power(Vm& vm, bool on);

// state_conflict with the state and the verbs that are allowed in it.
[[nodiscard]] base::Error power_conflict(const Vm& vm, std::string_view verb);

}  // namespace ghost::agent
