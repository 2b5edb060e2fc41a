#include "agent/host/tailnet_listeners.hpp"

#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <set>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

void TailnetListeners::serve(net::TlsContext tls, net::Handler handler) {
    tls_ = std::move(tls);
    handler_ = std::move(handler);
    open();
}

void TailnetListeners::use_tls(net::TlsContext tls) {
    tls_ = std::move(tls);
    for (const auto& [name, place] : places_)
        if (place.listener) place.listener->use_tls(tls_);
}

void TailnetListeners::follow(std::vector<std::string> addresses) {
    addresses_ = std::move(addresses);
    open();
    changed_.notify();
}

void TailnetListeners::open() {
    if (stopped_ || !serves()) return;
    std::map<std::string, net::TcpEndpoint> wanted;
    for (const auto port : ports_)
        for (const auto& address : addresses_) {
            const net::TcpEndpoint endpoint{address, port};
            wanted.emplace(net::to_string(endpoint), endpoint);
        }
    std::erase_if(places_, [&](const auto& entry) {
        if (wanted.contains(entry.first)) return false;
        if (entry.second.listener) {
            entry.second.listener->close(close_grace);
            log_.info("listening no more: the address left the tailnet", {{"address", entry.first}});
        }
        return true;
    });
    for (const auto& [name, endpoint] : wanted) {
        auto& place = places_[name];
        if (place.listener) continue;
        auto listener = server_.listen(endpoint, tls_, handler_);
        if (listener) {
            place = {*std::move(listener), ""};
            log_.info("listening", {{"address", name}, {"tls", true}});
        } else if (place.fault != listener.error().detail) {
            place.fault = listener.error().detail;
            log_.warn("the tailnet's address can't be listened on; it is tried again", {{"error", place.fault}});
        }
    }
}

asio::awaitable<void> TailnetListeners::run() {
    while (!stopped_) {
        if (fault().empty())
            co_await changed_.wait();
        else
            co_await changed_.wait_until(clock_, clock_.now() + retry);
        open();
    }
}

std::string TailnetListeners::fault() const {
    const auto failed =
        std::ranges::find_if(places_, [](const auto& entry) { return entry.second.listener == nullptr; });
    return failed == places_.end() ? std::string{} : failed->second.fault;
}

}  // namespace ghost::agent
