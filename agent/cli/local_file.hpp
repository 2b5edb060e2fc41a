// Files on this machine, read and written in pieces. Blocking: ghostctl has nothing else to do meanwhile.
#pragma once

#include "base/descriptor.hpp"
#include "base/error.hpp"
#include "base/random.hpp"

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

// A file that is there under its name only once all of it is: until then it is a hidden one beside, which goes with
// this object. One that is replaced keeps its mode; a new one has 0644, less the umask.
class NewFile {
public:
    // A symbolic link to a file is followed. Errors: io_error; not_found (no such folder); each names the path.
    [[nodiscard]] static base::Result<NewFile> create(const std::string& path, base::Random& random);
    NewFile(NewFile&& other) noexcept;
    NewFile& operator=(NewFile&&) = delete;
    ~NewFile();

    [[nodiscard]] base::Result<void> write(std::string_view bytes);
    // It is there, also after a power cut.
    [[nodiscard]] base::Result<void> finish();

private:
    NewFile(base::Descriptor file, std::string path, std::string draft)
        : file_(std::move(file)), path_(std::move(path)), draft_(std::move(draft)) {}

    base::Descriptor file_;
    std::string path_;
    std::string draft_;  // its name until it is finished; empty: there is none any more
};

// A file to be read from its beginning to where its end was when it was opened.
class OldFile {
public:
    // Errors: io_error, validation_failed (it is a folder or no file); each names the path.
    [[nodiscard]] static base::Result<OldFile> open(const std::string& path);

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] ::mode_t mode() const noexcept { return mode_; }  // permissions alone
    // Empty at the end. Errors: io_error, also when it has become shorter.
    [[nodiscard]] base::Result<std::string> next();

    static constexpr std::size_t piece = 128 * 1024;

private:
    OldFile(base::Descriptor file, std::string path, std::uint64_t size, ::mode_t mode)
        : file_(std::move(file)), path_(std::move(path)), size_(size), left_(size), mode_(mode) {}

    base::Descriptor file_;
    std::string path_;
    std::uint64_t size_;
    std::uint64_t left_;
    ::mode_t mode_;
};

}  // namespace ghost::cli
