#include "agent/cli/stream_end.hpp"

#include "net/websocket.hpp"

#include <fmt/format.h>

namespace ghost::cli {

std::optional<Failure> failure_of_stream(const RelayEnd& end, std::string_view what) {
    if (end.kind == RelayEnd::Kind::left) return std::nullopt;
    if (end.kind == RelayEnd::Kind::lost)
        return Failure{ExitCode::no_agent, fmt::format("{}: the connection to the agent was lost", what)};
    const auto said = [&](std::string_view otherwise) {
        return fmt::format("{}: {}", what, end.reason.empty() ? otherwise : std::string_view{end.reason});
    };
    switch (end.code) {
        case static_cast<std::uint16_t>(net::CloseCode::normal):
        case static_cast<std::uint16_t>(StreamClose::vm_stopped):
        case static_cast<std::uint16_t>(StreamClose::vm_deleted): return std::nullopt;
        case static_cast<std::uint16_t>(net::CloseCode::going_away):
            return Failure{ExitCode::no_agent, said("the agent is stopping"), {}, "try again when it is back"};
        case static_cast<std::uint16_t>(StreamClose::idle):
            return Failure{ExitCode::failed, said("nothing came or went for too long")};
        case static_cast<std::uint16_t>(StreamClose::guest_failed):
            return Failure{ExitCode::failed, said("the guest broke the connection off")};
        default: return Failure{ExitCode::failed, said(fmt::format("the agent closed it with code {}", end.code))};
    }
}

}  // namespace ghost::cli
