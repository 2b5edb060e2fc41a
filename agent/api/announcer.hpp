// Turns changes of VMs, operations, images and the agent into events, each with
// its resource as the API shows it.
#pragma once

#include "agent/api/answers.hpp"
#include "agent/events/event_log.hpp"
#include "agent/guest/guest_service.hpp"
#include "base/clock.hpp"

#include <boost/json/object.hpp>

#include <map>
#include <set>
#include <string>
#include <string_view>

namespace ghost::agent::api {

// What is read to tell of it; all of it outlives the announcer.
struct Announced {
    EventLog& events;
    Answers answers;
};

// Loop thread only. VMs are told of when the hypervisor's domains were read once: before that, what is known of them
// is old.
class Announcer {
public:
    explicit Announcer(Announced what);

    void vm(std::string_view id);
    void operation(const Operation& operation);
    void operation_forgotten(const std::string& id) const;
    void image(const std::string& name) const;
    void agent() const;
    void guest_access(const GuestAccess& access) const;
    // The history was restored: what became of operations and images and wasn't told is told.
    void settle_history();
    // The domains have been read: each VM that isn't as it was told last is told of.
    void domains_are_read();

    static constexpr std::chrono::seconds progress_interval{1};  // between events that tell of progress alone

private:
    struct Told {  // of an operation that runs
        std::string version;
        base::Instant at;
    };

    void tell_of_vms();
    void tell_of_vms_anew() const;
    void tell_of_vm(const std::string& id) const;

    Announced a_;
    std::set<std::string, std::less<>> changed_vms_;
    std::map<std::string, Told> running_;
    bool domains_read_ = false;
};

}  // namespace ghost::agent::api
