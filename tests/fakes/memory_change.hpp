// A change of MemoryFiles that is under way.
#pragma once

#include "fakes/memory_files.hpp"

#include <list>
#include <utility>

namespace ghost::fakes {

// Stands in the list of what is under way as long as it lives.
class MemoryFiles::Change {
public:
    Change(MemoryFiles& files, UnderWay what)
        : files_(files), at_(files_.under_way_.insert(files_.under_way_.end(), std::move(what))) {}
    ~Change() { files_.under_way_.erase(at_); }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

private:
    MemoryFiles& files_;
    std::list<UnderWay>::iterator at_;
};

}  // namespace ghost::fakes
