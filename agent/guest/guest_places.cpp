#include "agent/guest/guest_places.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {

class GuestPlaces::Held {
public:
    Held(std::shared_ptr<Taken> taken, std::string vm) : taken_(std::move(taken)), vm_(std::move(vm)) {
        ++taken_->by_vm[vm_];
        ++taken_->all;
    }
    ~Held() {
        const auto it = taken_->by_vm.find(vm_);
        if (--it->second == 0) taken_->by_vm.erase(it);
        --taken_->all;
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

private:
    std::shared_ptr<Taken> taken_;
    std::string vm_;
};

base::Result<GuestPlaces::Place> GuestPlaces::take(const std::string& vm) {
    const auto here = taken_->by_vm.find(vm);
    if (here != taken_->by_vm.end() && here->second >= each_)
        return base::fail(
            base::Errc::overloaded,
            fmt::format("{} {} are under way in this VM already, and that is as many as may be", each_, what_));
    if (taken_->all >= all_)
        return base::fail(base::Errc::overloaded,
                          fmt::format("{} {} are under way already, and that is as many as may be", all_, what_));
    return std::make_shared<const Held>(taken_, vm);
}

}  // namespace ghost::agent
