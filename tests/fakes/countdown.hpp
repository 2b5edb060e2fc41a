// "The n-th call from now fails": what a fake counts down.
#pragma once

namespace ghost::fakes {

class Countdown {
public:
    // The call number `calls` from now is the one; 0: none is.
    void set(unsigned calls) noexcept { left_ = calls; }
    // Counts a call; whether it is the one.
    [[nodiscard]] bool strikes() noexcept {
        if (left_ == 0) return false;
        --left_;
        return left_ == 0;
    }

private:
    unsigned left_ = 0;
};

}  // namespace ghost::fakes
