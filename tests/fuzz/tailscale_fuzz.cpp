// What tailscaled says of the tailnet: whatever it is, what comes of it is bounded, plain and fit to listen on.
#include "agent/host/tailnet.hpp"

#include <boost/asio/ip/address.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

using namespace ghost;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto state = agent::read_tailscale_status({reinterpret_cast<const char*>(data), size});
    if (!state) return 0;
    must(state->present && state->connected == state->reason.empty());
    must(!state->connected || !state->addresses.empty());
    must(state->addresses.size() <= 8 && state->dns_name.size() < 256 && state->reason.size() < 128);
    for (const auto& text : state->addresses) {
        boost::system::error_code error;
        const auto address = boost::asio::ip::make_address(text, error);
        must(!error && !address.is_unspecified() && !(address.is_v6() && address.to_v6().is_v4_mapped()));
    }
    for (const auto& text : {state->dns_name, state->reason})
        must(std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; }));
    return 0;
}
