// What is ours and nobody's: files and domains that no VM, image or operation
// accounts for.
#pragma once

#include "base/clock.hpp"

#include <boost/json/object.hpp>

#include <cstdint>
#include <string>

namespace ghost::agent {

struct Orphan {
    enum class Kind : std::uint8_t { file, domain };
    Kind kind = Kind::file;
    std::string id;           // of a domain
    std::string name;         // of a domain
    std::string path;         // of a file
    std::uint64_t bytes = 0;  // on disk
    std::string reason;       // a sentence
    base::Wall found_at;      // when it was seen first
};

[[nodiscard]] boost::json::object to_resource(const Orphan& orphan);

}  // namespace ghost::agent
