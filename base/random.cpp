#include "base/random.hpp"

#include <sys/random.h>

#include <cerrno>
#include <system_error>

namespace ghost::base {

void SystemRandom::fill(std::span<std::byte> out) {
    while (!out.empty()) {
        const auto got = ::getrandom(out.data(), out.size(), 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            throw std::system_error{errno, std::system_category(), "getrandom"};
        }
        out = out.subspan(static_cast<std::size_t>(got));
    }
}

}  // namespace ghost::base
