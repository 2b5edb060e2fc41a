#include "agent/vm/reading_order.hpp"

namespace ghost::agent {

ReadingOrder::Reading::Reading(ReadingOrder& order) : order_(order), number_(order.next_++) {
    order_.under_way_.insert(number_);
}

ReadingOrder::Reading::~Reading() {
    order_.under_way_.erase(number_);
    if (order_.under_way_.empty())
        order_.known_.clear();
    else
        std::erase_if(order_.known_,
                      [oldest = *order_.under_way_.begin()](const auto& k) { return k.second < oldest; });
}

bool ReadingOrder::Reading::accept(std::string_view id) const {
    const auto known = order_.known_.find(id);
    if (known == order_.known_.end()) {
        order_.known_.emplace(id, number_);
        return true;
    }
    if (known->second > number_) return false;
    known->second = number_;
    return true;
}

void ReadingOrder::deleted(std::string_view id) {
    if (!under_way_.empty()) known_.insert_or_assign(std::string{id}, next_++);
}

}  // namespace ghost::agent
