// How much of something each identity has at once.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace ghost::net {

// On the loop. Made with make_shared: places that are taken keep it alive.
class Places : public std::enable_shared_from_this<Places> {
public:
    explicit Places(std::size_t each) : each_(each) {}

    // Given back when it goes.
    class Place {
    public:
        Place(std::shared_ptr<Places> of, std::string identity) : of_(std::move(of)), identity_(std::move(identity)) {}
        Place(Place&&) noexcept = default;
        Place& operator=(Place&& other) noexcept {
            std::swap(of_, other.of_);
            std::swap(identity_, other.identity_);
            return *this;
        }
        ~Place() {
            if (of_) of_->give_back(identity_);
        }

    private:
        std::shared_ptr<Places> of_;  // null once moved from
        std::string identity_;
    };

    // nullopt: all of this identity's are taken.
    [[nodiscard]] std::optional<Place> take(std::string identity);
    [[nodiscard]] std::size_t each() const noexcept { return each_; }
    [[nodiscard]] bool all_free() const noexcept { return taken_.empty(); }

private:
    void give_back(const std::string& identity) noexcept;

    std::size_t each_;
    std::map<std::string, std::size_t, std::less<>> taken_;
};

}  // namespace ghost::net
