// qemu-img in a child process with limits: its arguments, its JSON and its words.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace ghost::storage {

struct QemuImageInfo {
    std::string format;
    std::uint64_t virtual_size = 0;  // bytes
    std::string backing_path;        // empty: none
    std::string backing_format;
    bool external_data = false;
    bool encrypted = false;
    bool corrupt = false;
};

struct QemuCreate {
    std::string path;
    std::uint64_t virtual_size = 0;
    std::string backing_path;  // empty: none
    std::string backing_format;
};

// Every path must be absolute (validation_failed otherwise): then qemu-img can't take one for an option, a protocol
// ("nbd:...") or a description ("json:..."). The format is always said, never guessed. Errors: insufficient_storage,
// invalid_image, state_conflict (another process has the image open), io_error (qemu-img's words), cancelled,
// deadline_exceeded.
class QemuImg {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;

    explicit QemuImg(base::ProcessRunner& processes) : processes_(processes) {}

    // Opens neither a backing file nor a running guest's lock.
    [[nodiscard]] Task<QemuImageInfo> info(std::string path, std::string format);
    // The metadata of a qcow2 is sound; leaked clusters are no fault.
    [[nodiscard]] Task<void> check(std::string path);
    // A qcow2. Keeps the mode of a file that is there, and overwrites it.
    [[nodiscard]] Task<void> create(QemuCreate what);
    [[nodiscard]] Task<void> resize(std::string path, std::uint64_t virtual_size);  // a qcow2, upwards

private:
    [[nodiscard]] Task<base::Exit> run(std::vector<std::string> arguments, std::chrono::seconds deadline);

    base::ProcessRunner& processes_;
};

}  // namespace ghost::storage
