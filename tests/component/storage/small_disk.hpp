// A tiny tmpfs, to be filled. Mounting takes root.
#pragma once

#include <sys/mount.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

class SmallDisk {
public:
    SmallDisk(std::string path, std::uint64_t bytes) : path_(std::move(path)) {
        std::filesystem::create_directories(path_);
        const auto options = "size=" + std::to_string(bytes);
        mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, options.c_str()) == 0;
    }
    ~SmallDisk() {
        if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;

    [[nodiscard]] bool mounted() const noexcept { return mounted_; }
    [[nodiscard]] std::string path(std::string_view name = {}) const {
        return name.empty() ? path_ : path_ + "/" + std::string{name};
    }

private:
    std::string path_;
    bool mounted_ = false;
};
