#include "base/fail_point.hpp"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>

namespace ghost::base {
#ifdef GHOST_FAIL_POINTS
namespace {

std::string from_environment(const char* name) {
    const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets any
    return value == nullptr ? std::string{} : std::string{value};
}

}  // namespace

void fail_point(std::string_view name) {
    static const auto deadly = from_environment("GHOST_FAIL_POINT");
    static const auto log = from_environment("GHOST_FAIL_POINT_LOG");
    if (!log.empty()) std::ofstream{log, std::ios::app} << name << '\n';
    if (name == deadly) static_cast<void>(std::raise(SIGKILL));
}

#else
void fail_point(std::string_view /*name*/) {}
#endif

}  // namespace ghost::base
