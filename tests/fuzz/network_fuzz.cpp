// What rtnetlink tells of the network: whatever comes, no byte beyond it is read.
#include "net/network_view.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

using namespace ghost;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    net::NetworkView view;
    const auto bytes = std::as_bytes(std::span{data, size});
    (void)view.take(bytes);
    (void)view.take(bytes);
    for (std::size_t half = size / 2; half > 0; half /= 2) (void)view.take(bytes.first(half));
    return 0;
}
