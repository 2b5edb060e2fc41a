// The directory the agent keeps its state in: made, held against a second
// agent, and the identity it carries. Blocking: for start-up.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "heartbeat/identity.hpp"

#include <string>

namespace ghost::agent {

class StateDirectory {
public:
    // Makes `path` (0711: VMs' disks below it are opened by QEMU's own user) and takes its lock. Errors: io_error with
    // a sentence: can't be made, not writable; state_conflict: another agent holds it.
    [[nodiscard]] static base::Result<StateDirectory> open(const std::string& path);

    StateDirectory(StateDirectory&& other) noexcept;
    StateDirectory& operator=(StateDirectory&&) = delete;
    StateDirectory(const StateDirectory&) = delete;
    StateDirectory& operator=(const StateDirectory&) = delete;
    ~StateDirectory();

    // identity.json with its next epoch, already on disk when this returns.
    [[nodiscard]] base::Result<heartbeat::Identity> next_identity(const base::Clock& clock, base::Random& random) const;

private:
    StateDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
    std::string path_;
    int lock_;
};

}  // namespace ghost::agent
