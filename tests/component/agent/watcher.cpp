#include "component/agent/world.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <utility>

namespace ghost::tests {
namespace {

// "id: 7\nevent: vm.power\ndata: {...}\n\n"
Watcher::Event parse_event(const std::string& text) {
    const auto line = [&text](std::string_view name) {
        const auto at = text.find(std::string{name} + ": ");
        REQUIRE(at != std::string::npos);
        const auto from = at + name.size() + 2;
        return text.substr(from, text.find('\n', from) - from);
    };
    const auto data = boost::json::parse(line("data"));
    Watcher::Event event{std::stoull(line("id")), line("event"), std::string{data.at("subject").as_string()},
                         data.at("data")};
    REQUIRE(data.at("id").to_number<std::uint64_t>() == event.id);
    REQUIRE(data.at("type").as_string() == event.type);
    return event;
}

boost::asio::awaitable<void> read_on(std::shared_ptr<Watcher> watcher, net::BodySource source) {
    while (const auto chunk = co_await source()) {
        if (chunk->starts_with("id: "))
            watcher->events.push_back(parse_event(*chunk));
        else if (chunk->starts_with(": ping"))
            ++watcher->pings;
    }
}

}  // namespace

std::vector<std::string> Watcher::types() const {
    std::vector<std::string> out;
    out.reserve(events.size());
    for (const auto& event : events) out.push_back(event.type);
    return out;
}

std::vector<std::string> Watcher::types_of(std::string_view subject) const {
    std::vector<std::string> out;
    for (const auto& event : events)
        if (event.subject == subject) out.push_back(event.type);
    return out;
}

std::shared_ptr<Watcher> World::watch(std::optional<std::uint64_t> after) {
    auto watcher = std::make_shared<Watcher>();
    auto request = make_request(net::Method::get, "/v1/events", {});
    if (after) request.headers.set("Last-Event-ID", std::to_string(*after));
    boost::asio::co_spawn(loop, app->api()(std::move(request)),
                          [this, watcher](const std::exception_ptr& e, const net::Response& response) {
                              REQUIRE_FALSE(e);
                              watcher->status = response.status;
                              if (!response.stream) {
                                  watcher->code = to_reply(response).text("/code");
                                  return;
                              }
                              boost::asio::co_spawn(loop, read_on(watcher, response.stream),
                                                    boost::asio::bind_cancellation_slot(
                                                        watcher->leave.slot(), [watcher](const std::exception_ptr&) {
                                                            watcher->ended = true;
                                                        }));
                          });
    settle();
    return watcher;
}

}  // namespace ghost::tests
