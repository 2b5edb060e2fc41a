#include "component/agent/private_bus.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

namespace ghost::tests {
namespace {

constexpr const char* variable = "DBUS_SYSTEM_BUS_ADDRESS";
constexpr const char* login = "org.freedesktop.login1";
constexpr const char* login_path = "/org/freedesktop/login1";
constexpr const char* login_manager = "org.freedesktop.login1.Manager";

sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

base::Descriptor unix_socket() {
    base::Descriptor made{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    REQUIRE(made);
    return made;
}

bool accepts(const std::string& path) {
    const auto connection = unix_socket();
    const auto address = unix_address(path);
    return ::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

SystemBusAddress::SystemBusAddress(const std::string& address) {
    if (const char* former = std::getenv(variable); former != nullptr) former_ = former;
    ::setenv(variable, address.c_str(), 1);
}

SystemBusAddress::~SystemBusAddress() {
    if (former_)
        ::setenv(variable, former_->c_str(), 1);
    else
        ::unsetenv(variable);
}

PrivateBus::PrivateBus() {
    folder_.write("bus.conf",
                  fmt::format(R"(<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
)",
                              socket_path()));
    start();
}

void PrivateBus::start() {
    REQUIRE(pid_ < 0);
    const std::string config = "--config-file=" + folder_.path("bus.conf");
    std::array<const char*, 6> arguments{"dbus-daemon", config.c_str(), "--nofork",
                                         "--nopidfile", "--nosyslog",   nullptr};
    const auto parent = ::getpid();
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(126);
        ::execv("/usr/bin/dbus-daemon", const_cast<char* const*>(arguments.data()));
        ::_exit(127);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes{1};
    while (!accepts(socket_path())) {
        int status = 0;
        if (::waitpid(pid_, &status, WNOHANG) == pid_) {
            pid_ = -1;
            FAIL("dbus-daemon ended with status " << status);
        }
        REQUIRE(std::chrono::steady_clock::now() < end);
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
}

void PrivateBus::kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
    std::error_code ignored;
    std::filesystem::remove(socket_path(), ignored);
}

SilentBus::SilentBus() : listener_(unix_socket()) {
    const auto address = unix_address(folder_.path("bus"));
    REQUIRE(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
}

LoginManager::LoginManager(const std::string& address) {
    sd_bus* bus = nullptr;
    REQUIRE(sd_bus_new(&bus) >= 0);
    bus_.reset(bus);
    REQUIRE(sd_bus_set_address(bus, address.c_str()) >= 0);
    REQUIRE(sd_bus_set_bus_client(bus, 1) >= 0);
    REQUIRE(sd_bus_negotiate_fds(bus, 1) >= 0);
    REQUIRE(sd_bus_start(bus) >= 0);
    REQUIRE(sd_bus_add_object(bus, nullptr, login_path, take_call, this) >= 0);
    REQUIRE(sd_bus_request_name(bus, login, 0) >= 0);
}

void LoginManager::turn() {
    while (sd_bus_process(bus_.get(), nullptr) > 0) {
    }
}

void LoginManager::tell(bool begins) {
    REQUIRE(sd_bus_emit_signal(bus_.get(), login_path, login_manager, "PrepareForSleep", "b", begins ? 1 : 0) >= 0);
}

void LoginManager::leave() { REQUIRE(sd_bus_release_name(bus_.get(), login) >= 0); }

bool LoginManager::held() const {
    if (!lock_) return false;
    pollfd end{lock_.get(), POLLIN, 0};
    return ::poll(&end, 1, 0) == 0;
}

int LoginManager::take_call(sd_bus_message* message, void* self, sd_bus_error* /*error*/) {
    if (sd_bus_message_is_method_call(message, login_manager, "Inhibit") <= 0) return 0;
    return static_cast<LoginManager*>(self)->give_lock(message);
}

int LoginManager::give_lock(sd_bus_message* message) {
    const char* what = nullptr;
    const char* who = nullptr;
    const char* why = nullptr;
    const char* mode = nullptr;
    if (const int read = sd_bus_message_read(message, "ssss", &what, &who, &why, &mode); read < 0) return read;
    asked_ = {what, who, mode};
    if (refuses_) return sd_bus_reply_method_errorf(message, SD_BUS_ERROR_ACCESS_DENIED, "Permission denied");
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return -errno;
    lock_.reset(ends[0]);
    const base::Descriptor given{ends[1]};
    ++locks_;
    return sd_bus_reply_method_return(message, "h", given.get());
}

}  // namespace ghost::tests
