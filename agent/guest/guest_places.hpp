// How many may be in the guests at a time: in each, and in all of them together.
#pragma once

#include "base/error.hpp"

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only. A place may outlive the places.
class GuestPlaces {
public:
    // `what`: they are called in a sentence, "programs".
    GuestPlaces(std::string_view what, std::size_t each, std::size_t all) : what_(what), each_(each), all_(all) {}

    // Held as long as the place is. Errors: overloaded.
    using Place = std::shared_ptr<const void>;
    [[nodiscard]] base::Result<Place> take(const std::string& vm);

private:
    struct Taken {
        std::map<std::string, std::size_t> by_vm;
        std::size_t all = 0;
    };
    class Held;

    std::string what_;
    std::size_t each_;
    std::size_t all_;
    std::shared_ptr<Taken> taken_ = std::make_shared<Taken>();
};

}  // namespace ghost::agent
