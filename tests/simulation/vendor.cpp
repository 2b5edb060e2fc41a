#include "simulation/vendor.hpp"

#include "net/digest.hpp"

#include <array>
#include <string_view>

namespace ghost::simulation {
namespace {

using base::Errc;

constexpr std::size_t size = 300'000;

}  // namespace

Vendor::Vendor(Machine& machine) : m_(machine) {
    m_.web.before_piece = [this](std::string_view, std::uint64_t) -> boost::asio::awaitable<void> {
        if (m_.dice.percent(15)) co_await m_.clock.sleep_for(std::chrono::milliseconds{m_.dice.between(1, 3000)});
    };
    publish();
}

void Vendor::publish() {
    auto bytes = fakes::qcow2_bytes(1ULL << 30U);
    bytes.resize(size, newer_ ? 'n' : 'o');
    const std::string etag = newer_ ? "\"n\"" : "\"o\"";
    const bool ranges = m_.dice.percent(80);
    for (const auto* url : {Machine::vendors_url, Machine::vendors_mirror}) {
        auto& site = m_.web.sites[url];
        site.bytes = bytes;
        site.etag = m_.dice.percent(80) ? etag : "";
        site.ranges = ranges;
        site.length = m_.dice.percent(80);
    }
    m_.web.sites[Machine::vendors_list].bytes = net::sha256_hex(bytes) + "  image.qcow2\n";
    newer_ = !newer_;
}

void Vendor::act() {
    if (m_.dice.percent(30)) {
        m_.trace("the vendor has another image");
        return publish();
    }
    fail();
}

void Vendor::fail() {
    constexpr std::array urls{Machine::vendors_url, Machine::vendors_mirror, Machine::vendors_list};
    auto& dice = m_.dice;
    const std::string url{dice.pick(urls)};
    auto& faults = m_.web.sites[url].faults;
    const auto times = dice.between(1, 4);
    m_.trace("{} fails {} times", url, times);
    for (std::uint64_t i = 0; i < times; ++i) switch (dice.below(5)) {
            case 0: faults.push_back({.status = 503}); break;
            case 1: faults.push_back({.status = 404}); break;
            case 2:
                faults.push_back({.failure = net::WebFailure{{Errc::source_unavailable, "no route"}, false}});
                break;
            default: faults.push_back({.cut_after = dice.below(size)}); break;
        }
}

void Vendor::mend() {
    for (auto& [url, site] : m_.web.sites) site.faults.clear();
}

}  // namespace ghost::simulation
