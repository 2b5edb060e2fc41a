// base::ProcessRunner without processes: a function answers. fake_qemu_img() is one that keeps its images in
// MemoryFiles.
#pragma once

#include "base/process.hpp"
#include "fakes/countdown.hpp"
#include "fakes/memory_files.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

class FakeProcesses final : public base::ProcessRunner {
public:
    using Answer = std::function<base::Result<base::Exit>(const std::vector<std::string>& argv)>;

    // Without an answer no program is found.
    explicit FakeProcesses(Answer answer = {}) : answer_(std::move(answer)) {}
    void set_answer(Answer answer) { answer_ = std::move(answer); }

    // Yields to the loop once; a cancellation before the answer is `cancelled`, and then nothing was run.
    boost::asio::awaitable<base::Result<base::Exit>> run(base::Command command) override;

    // The n-th run from now on (1: the next) ends like this instead.
    void fail_run(unsigned n, base::Result<base::Exit> outcome) {
        failing_.set(n);
        outcome_ = std::move(outcome);
    }
    [[nodiscard]] const std::vector<std::vector<std::string>>& calls() const noexcept { return calls_; }
    // Runs whose argv contains `word`.
    [[nodiscard]] std::size_t calls_with(std::string_view word) const;

private:
    Answer answer_;
    std::vector<std::vector<std::string>> calls_;
    Countdown failing_;
    base::Result<base::Exit> outcome_;
};

// Answers `qemu-img info|create|check|resize` as QEMU 7.2 does, for qcow2 (headers only) and raw files in `files`,
// which must outlive it. Other programs are not_found.
[[nodiscard]] FakeProcesses::Answer fake_qemu_img(MemoryFiles& files);

// A qcow2 image's header: enough for everything here that reads one.
[[nodiscard]] std::string qcow2_bytes(std::uint64_t virtual_size, std::string_view backing_path = {},
                                      std::string_view backing_format = {});

}  // namespace ghost::fakes
