// A libvirtd of the test's own: unprivileged, on its own socket, with its own
// directories, so that it can be stopped, killed and started again.
#pragma once

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

namespace ghost::test {

class PrivateLibvirtd {
public:
    PrivateLibvirtd() {
        std::string name = std::filesystem::temp_directory_path() / "ghost-libvirtd-XXXXXX";
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        directory_ = name;
        std::ofstream{directory_ / "libvirtd.conf"}
            << fmt::format("unix_sock_dir = \"{0}\"\nauth_unix_rw = \"none\"\nlog_outputs = \"3:file:{0}/log\"\n",
                           directory_.string());
        own(directory_);
        own(directory_ / "libvirtd.conf");
        start();
    }
    ~PrivateLibvirtd() {
        kill();
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }
    PrivateLibvirtd(const PrivateLibvirtd&) = delete;
    PrivateLibvirtd& operator=(const PrivateLibvirtd&) = delete;

    [[nodiscard]] std::string uri() const {
        return fmt::format("test+unix:///default?socket={}", socket_path().string());
    }

    // Returns when it accepts connections.
    void start() {
        REQUIRE(pid_ < 0);
        const std::string config = directory_ / "libvirtd.conf";
        const std::string pid_file = directory_ / "pid";
        std::array<std::string, 4> environment{fmt::format("HOME={}", directory_.string()),
                                               fmt::format("XDG_RUNTIME_DIR={}", directory_.string()),
                                               fmt::format("XDG_CONFIG_HOME={}", directory_.string()),
                                               fmt::format("XDG_CACHE_HOME={}", directory_.string())};
        std::array<const char*, 6> arguments{"libvirtd",   "--config",       config.c_str(),
                                             "--pid-file", pid_file.c_str(), nullptr};
        std::array<char*, 5> variables{environment[0].data(), environment[1].data(), environment[2].data(),
                                       environment[3].data(), nullptr};
        const auto parent = ::getpid();
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            // Root's libvirtd would be the system's one.
            if (::geteuid() == 0 && (::setgid(nobody) != 0 || ::setuid(nobody) != 0)) ::_exit(126);
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (::getppid() != parent) ::_exit(126);
            sigset_t none;
            sigemptyset(&none);
            pthread_sigmask(SIG_SETMASK, &none, nullptr);
            if (::chdir("/") != 0) ::_exit(126);
            for (const char* program : {"/usr/sbin/libvirtd", "/usr/bin/libvirtd"})
                ::execve(program, const_cast<char* const*>(arguments.data()), variables.data());
            ::_exit(127);
        }
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
        while (!accepts()) {
            int status = 0;
            if (::waitpid(pid_, &status, WNOHANG) == pid_) {
                pid_ = -1;
                FAIL("libvirtd ended with status " << status);
            }
            REQUIRE(std::chrono::steady_clock::now() < end);
            std::this_thread::sleep_for(std::chrono::milliseconds{20});
        }
    }
    void stop_answering() const { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
    void answer_again() const { REQUIRE(::kill(pid_, SIGCONT) == 0); }
    void kill() {
        if (pid_ < 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
        std::error_code ignored;
        std::filesystem::remove(socket_path(), ignored);
    }

private:
    static constexpr unsigned nobody = 65534;

    [[nodiscard]] std::filesystem::path socket_path() const { return directory_ / "libvirt-sock"; }
    static void own(const std::filesystem::path& path) {
        if (::geteuid() == 0) REQUIRE(::chown(path.c_str(), nobody, nobody) == 0);
    }
    [[nodiscard]] bool accepts() const {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(fd >= 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const auto path = socket_path().string();
        REQUIRE(path.size() < sizeof address.sun_path);
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        const bool accepted = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        ::close(fd);
        return accepted;
    }

    std::filesystem::path directory_;
    pid_t pid_ = -1;
};

}  // namespace ghost::test
