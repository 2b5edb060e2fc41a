// What Ghost Core answers, however wrong: the link neither breaks, nor floods it, nor says what no terminal should
// show.
#include "heartbeat/enrolment.hpp"
#include "heartbeat/inbox.hpp"
#include "heartbeat/link.hpp"
#include "net/text.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

using namespace ghost;
using namespace std::chrono_literals;

namespace {

class Node final : public heartbeat::Node {
public:
    boost::json::object about() const override { return {{"name", "n"}, {"version", "1"}}; }
    boost::json::array features() const override { return {}; }
    boost::json::object addresses() const override { return {}; }
    boost::json::object resources() const override { return {}; }
    boost::json::array conditions() const override { return {}; }
};

class Numbers final : public base::Random {
public:
    void fill(std::span<std::byte> out) override {
        for (auto& byte : out) byte = static_cast<std::byte>(state_ = state_ * 31 + 7);
    }

private:
    unsigned char state_ = 1;
};

void require(bool holds) {
    if (!holds) std::abort();
}

constexpr std::array<unsigned, 14> statuses{200, 200, 200, 201, 401, 403, 404, 409, 410, 413, 422, 426, 429, 503};

}  // namespace

// Answers, each: a byte that chooses the status, and the body up to the next byte 0.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view left{reinterpret_cast<const char*>(data), size};
    Node node;
    Numbers random;
    heartbeat::StateView view;
    heartbeat::Inbox inbox{[](const boost::json::object& params) { return params.contains("secret"); }};
    heartbeat::Outbox outbox{1};
    auto now = base::Instant{1h};
    const auto wall = [&now] { return base::from_unix_ms(1'767'323'045'000) + (now - base::Instant{1h}); };
    heartbeat::Link link{{.url = "https://core.example", .token = "t", .epoch = 1},
                         {"node-1", "", {}, net::CertificateFacts{"node-1", wall() - 1h, wall() + 1h}},
                         {node, view, inbox, outbox, random}};
    view.put_vm("a", {{"id", "a"}});
    outbox.release(outbox.add(wall(), "vm.created", {}).rev);
    const auto start = now;
    std::size_t calls = 0;
    while (!left.empty() && now < start + 24h) {
        const auto step = link.next(now, wall());
        if (const auto* idle = std::get_if<heartbeat::Link::Idle>(&step)) {
            now = std::max(now, std::min(idle->until, start + 24h));
            continue;
        }
        const auto& call = std::get<heartbeat::CoreCall>(step);
        if (const auto* acks = call.body.if_contains("acks"))
            require(acks->as_array().size() <= heartbeat::Inbox::max_acks);
        const auto end = left.find('\0');
        const auto answer = left.substr(0, end);
        left.remove_prefix(end == std::string_view::npos ? left.size() : end + 1);
        heartbeat::CoreAnswer core{.status = 200};
        if (!answer.empty()) {
            core.status = statuses[static_cast<unsigned char>(answer.front()) % statuses.size()];
            core.body = answer.substr(1);
        }
        auto effects = link.took(call, core, now, now + 1ms, wall());
        now += 1ms;
        ++calls;
        std::vector<std::string> faults;
        for (const auto& command : inbox.take(effects.commands, wall(), faults)) {
            const auto kept = heartbeat::command_from_document(heartbeat::to_document(command));
            require(kept && kept->id == command.id && kept->kind == command.kind);
            inbox.admit({command});
            require(inbox.find(command.id) != nullptr);
        }
        require(inbox.unfinished() <= heartbeat::Inbox::max_unfinished);
        const auto& detail = link.status().detail;
        require(net::is_utf8(detail) && detail.find_first_of("\n\r\x1b") == std::string::npos);
    }
    // A burst may come with a session; but nothing goes on without a pause.
    const auto seconds = static_cast<std::size_t>((now - start) / 1s);
    require(calls <= 40 + 4 * (seconds + 1));
    return 0;
}
