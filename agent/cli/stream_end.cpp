#include "agent/cli/stream_end.hpp"

#include "net/websocket.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace ghost::cli {
namespace {

// Why the agent closed a stream, of the codes that are its own.
enum OwnCode : std::uint16_t { idle = 4000, vm_stopped = 4001, vm_deleted = 4002, guest_failed = 4003 };

}  // namespace

std::optional<Failure> failure_of_stream(const RelayEnd& end, std::string_view what) {
    if (end.kind == RelayEnd::Kind::left) return std::nullopt;
    if (end.kind == RelayEnd::Kind::lost)
        return Failure{ExitCode::no_agent, fmt::format("{}: the connection to the agent was lost", what)};
    const auto said = [&](std::string_view otherwise) {
        return fmt::format("{}: {}", what, end.reason.empty() ? otherwise : std::string_view{end.reason});
    };
    switch (end.code) {
        case static_cast<std::uint16_t>(net::CloseCode::normal):
        case OwnCode::vm_stopped:
        case OwnCode::vm_deleted: return std::nullopt;
        case static_cast<std::uint16_t>(net::CloseCode::going_away):
            return Failure{ExitCode::no_agent, said("the agent is stopping"), {}, "try again when it is back"};
        case OwnCode::idle: return Failure{ExitCode::failed, said("nothing came or went for too long")};
        case OwnCode::guest_failed: return Failure{ExitCode::failed, said("the guest broke the connection off")};
        default: return Failure{ExitCode::failed, said(fmt::format("the agent closed it with code {}", end.code))};
    }
}

}  // namespace ghost::cli
