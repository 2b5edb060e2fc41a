// Those who list and then follow the events, are cut off, and go on where they were.
#pragma once

#include "simulation/machine.hpp"
#include "simulation/told.hpp"

#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ghost::simulation {

// A VM without what the events don't tell of.
[[nodiscard]] boost::json::value steady(boost::json::value vm);

class Reader {
public:
    Reader(Machine& machine, Told& told, std::size_t number);

    // Goes on with what it is at, if it is at nothing: lists, or follows from what it has seen.
    void go_on();
    // Its connection breaks.
    void cut_off();
    // It is following, and was told of all that there is.
    [[nodiscard]] bool follows() const noexcept { return following_; }

    [[nodiscard]] std::size_t number() const noexcept { return number_; }
    [[nodiscard]] const std::map<std::string, boost::json::value>& vms() const noexcept { return vms_; }
    [[nodiscard]] const std::map<std::string, std::string>& operations() const noexcept { return operations_; }
    [[nodiscard]] const std::map<std::string, std::string>& images() const noexcept { return images_; }

private:
    void ask(const std::string& path, std::function<void(const net::Response&)> answered);
    void list();
    void took(const net::Response& response, std::string_view what);
    void follow();
    void event(const std::string& text);

    Machine& m_;
    Told& told_;
    std::size_t number_;
    Wire::Ptr call_;  // null: it is at nothing
    bool following_ = false;
    unsigned listed_ = 0;                // of the lists
    std::optional<std::uint64_t> seen_;  // where it goes on; none: it has to list
    std::uint64_t from_ = 0;             // the oldest event of the lists
    std::map<std::string, boost::json::value> vms_;
    std::map<std::string, std::string> operations_;  // id -> state
    std::map<std::string, std::string> images_;      // name -> state
};

}  // namespace ghost::simulation
