// A D-Bus system bus of the test's own, with a login manager on it.
#pragma once

#include "base/descriptor.hpp"
#include "fakes/scratch_folder.hpp"

#include <systemd/sd-bus.h>

#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::tests {

// What DBUS_SYSTEM_BUS_ADDRESS says while it lives.
class SystemBusAddress {
public:
    explicit SystemBusAddress(const std::string& address);
    ~SystemBusAddress();
    SystemBusAddress(const SystemBusAddress&) = delete;
    SystemBusAddress& operator=(const SystemBusAddress&) = delete;

private:
    std::optional<std::string> former_;
};

// dbus-daemon, on a socket in a folder of its own, where everybody may do everything.
class PrivateBus {
public:
    PrivateBus();
    ~PrivateBus() { kill(); }
    PrivateBus(const PrivateBus&) = delete;
    PrivateBus& operator=(const PrivateBus&) = delete;

    // Returns when it accepts connections.
    void start();
    void kill();
    [[nodiscard]] std::string address() const { return "unix:path=" + socket_path(); }

private:
    [[nodiscard]] std::string socket_path() const { return folder_.path("bus"); }

    fakes::ScratchFolder folder_;
    SystemBusAddress here_{"unix:path=" + folder_.path("bus")};
    pid_t pid_ = -1;
};

// Takes connections and never says a word.
class SilentBus {
public:
    SilentBus();

private:
    fakes::ScratchFolder folder_;
    SystemBusAddress here_{"unix:path=" + folder_.path("bus")};
    base::Descriptor listener_;
};

// org.freedesktop.login1, as far as it is about sleep. Does nothing but in turn().
class LoginManager {
public:
    explicit LoginManager(const std::string& address);
    LoginManager(const LoginManager&) = delete;
    LoginManager& operator=(const LoginManager&) = delete;

    void turn();
    // PrepareForSleep.
    void tell(bool begins);
    // Gives its name up.
    void leave();
    void refuse(bool on) { refuses_ = on; }

    // Whether the lock it gave last is held. Its holder's end shows at once, whatever becomes of the bus.
    [[nodiscard]] bool held() const;
    [[nodiscard]] int locks() const noexcept { return locks_; }
    // What, who and mode of the last Inhibit.
    [[nodiscard]] const std::vector<std::string>& asked() const noexcept { return asked_; }

private:
    struct Close {
        void operator()(sd_bus* bus) const noexcept { sd_bus_close_unref(bus); }
    };
    static int take_call(sd_bus_message* message, void* self, sd_bus_error* error);
    int give_lock(sd_bus_message* message);

    std::unique_ptr<sd_bus, Close> bus_;
    base::Descriptor lock_;  // the end that sees whether the other is closed
    int locks_ = 0;
    bool refuses_ = false;
    std::vector<std::string> asked_;
};

}  // namespace ghost::tests
