// Files out of the agent and into a VM, in pieces as they come.
#pragma once

#include "agent/cli/agent_client.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/stdio.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <string>

namespace ghost::cli {

// What a copy works with; all references must outlive it.
struct CopyPlace {
    AgentClient& agent;
    Stdio& stdio;
    base::Clock& clock;
    base::Random& random;
    Console& console;
};

// The body of the answer to a GET of `target` becomes the file `path`, "-": standard output; all of it or nothing.
// `subject`: as progress names it. How many bytes that were.
[[nodiscard]] boost::asio::awaitable<Outcome<std::uint64_t>> fetch_file(CopyPlace place, std::string target,
                                                                        std::string path, std::string subject);
// The file `path`, "-": standard input, becomes the body of a PUT to `target`, with the file's mode as ?mode=.
[[nodiscard]] boost::asio::awaitable<Outcome<std::uint64_t>> send_file(CopyPlace place, std::string target,
                                                                       std::string path, std::string subject);

}  // namespace ghost::cli
