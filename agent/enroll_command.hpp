// ghost-agent enroll: joins Ghost Core while no daemon runs.
#pragma once

#include <iosfwd>
#include <map>
#include <string>
#include <vector>

namespace ghost::agent {

struct EnrollSurroundings {
    std::istream& in;  // for `--token -`
    std::ostream& out;
    std::ostream& error;
    std::map<std::string, std::string> environment;
};

// `words`: what follows "enroll" on the command line. Returns the exit code (daemon.hpp); what went wrong is a sentence
// on `error`.
[[nodiscard]] int run_enroll(std::vector<std::string> words, EnrollSurroundings surroundings);

}  // namespace ghost::agent
