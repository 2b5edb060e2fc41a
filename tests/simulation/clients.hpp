// Those who ask the agent for changes, lose their connections, and ask again.
#pragma once

#include "simulation/machine.hpp"
#include "simulation/told.hpp"

#include <cstddef>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::simulation {

// One sending of an ask.
struct Attempt {
    std::string request_id;
    Wire::Ptr call;
    bool over = false;
    unsigned status = 0;    // 0: no answer came
    std::string code;       // of a problem
    std::string operation;  // id, where the answer told one
    bool refused = false;   // the answer says that nothing was begun
};

// A change that somebody wants. Asked more than once, it is the same request each time.
struct Ask {
    std::string who;
    std::string what;  // "create", "start", ... ; "cancel" begins no operation
    net::Method method = net::Method::post;
    std::string path;
    std::string body;
    std::string key;            // empty: none
    std::string if_match;       // empty: none
    bool stale = false;         // if_match is of no generation there ever was
    bool dry = false;           // only asks what it would do
    std::deque<Attempt> tries;  // in a deque, so that each stays where it is
};

class Clients {
public:
    Clients(Machine& machine, Told& told);

    // Somebody asks for something, asks again, or goes away.
    void act();
    // The same as `act`, of a kind.
    void ask_for(std::string_view what);
    [[nodiscard]] std::size_t waiting() const;
    // Of a VM that somebody may want.
    [[nodiscard]] std::string create_body();
    [[nodiscard]] const std::deque<Ask>& asks() const noexcept { return asks_; }

    static constexpr std::string_view names[] = {"a", "b", "c", "d"};
    static constexpr std::string_view images[] = {"tiny", "small", "twin"};

private:
    Ask make(std::string_view what);
    void add_conditions(Ask& ask);
    // Mostly of one that is there.
    [[nodiscard]] std::string choose_vm(bool managed);
    void send(std::size_t ask);
    void answered(Ask& ask, Attempt& attempt, const net::Response& response);
    void ask_again();
    void go_away();
    [[nodiscard]] std::string patch_body();

    Machine& m_;
    Told& told_;
    std::size_t count_;
    std::size_t made_ = 0;
    std::deque<Ask> asks_;
    std::vector<std::string> begun_;  // operations, as answers told
};

}  // namespace ghost::simulation
