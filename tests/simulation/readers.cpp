#include "simulation/readers.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

std::string text_of(const json::value& value, std::string_view member) {
    return std::string{value.as_object().at(member).as_string()};
}

// "id: 7\nevent: vm.power\ndata: {...}\n\n"
std::string_view field(std::string_view text, std::string_view name) {
    const auto at = text.find(name);
    if (at == std::string_view::npos) return {};
    const auto from = at + name.size();
    return text.substr(from, text.find('\n', from) - from);
}

}  // namespace

json::value steady(json::value vm) {
    auto& status = vm.as_object().at("status").as_object();
    for (const auto* member : {"usage", "uptime_s", "observed_at"}) status.erase(member);
    for (auto& condition : status.at("conditions").as_array()) condition.as_object().erase("since");
    return vm;
}

Reader::Reader(Machine& machine, Told& told, std::size_t number) : m_(machine), told_(told), number_(number) {}

void Reader::ask(const std::string& path, std::function<void(const net::Response&)> answered) {
    net::Request request;
    const auto target = net::parse_target(path);
    request.path = target->path;
    request.query = target->query;
    request.context = {"", "", {base::Principal::Kind::socket, fmt::format("reader:{}", number_), true}};
    if (path == "/v1/events") request.headers.set("Last-Event-ID", std::to_string(*seen_));
    call_ = m_.send(std::move(request), {std::move(answered), [this](const std::string& text) { event(text); },
                                         [this] {
                                             call_.reset();
                                             following_ = false;
                                         }});
}

void Reader::go_on() {
    if (call_ || m_.state() != Machine::State::up) return;
    if (seen_)
        follow();
    else
        list();
}

void Reader::cut_off() {
    if (!call_) return;
    m_.trace("reader {} is cut off", number_);
    m_.hang_up(call_);
}

// One list after another; the oldest of their events is where it goes on.
void Reader::list() {
    static constexpr std::string_view lists[] = {"vms", "operations", "images"};
    if (listed_ == 0) {
        vms_.clear();
        operations_.clear();
        images_.clear();
    }
    const auto what = lists[listed_];
    m_.trace("reader {} lists {}", number_, what);
    ask(fmt::format("/v1/{}?limit=1000", what), [this, what](const net::Response& response) { took(response, what); });
}

void Reader::took(const net::Response& response, std::string_view what) {
    if (response.status != 200) {
        m_.trace.violated("reader {} can't list {}: {} {}", number_, what, response.status, response.body);
        return;
    }
    const std::uint64_t id = std::stoull(std::string{response.headers.find("Ghost-Event-Id").value_or("0")});
    const auto body = json::parse(response.body);
    for (const auto& item : body.at("items").as_array()) {
        if (what == "vms") {
            vms_[text_of(item, "id")] = steady(item);
        } else if (what == "operations") {
            told_.operation(item);
            operations_[text_of(item, "id")] = text_of(item, "state");
        } else {
            images_[text_of(item, "name")] = text_of(item, "state");
        }
    }
    m_.trace("reader {} has {} as of event {}", number_, what, id);
    if (listed_ > 0 && (id >> 32U) != (from_ >> 32U)) {
        m_.trace("reader {} lists again: the agent has started meanwhile", number_);
        listed_ = 0;
        return;
    }
    from_ = listed_ == 0 ? id : std::min(from_, id);
    if (++listed_ < 3) return;
    listed_ = 0;
    seen_ = from_;
}

void Reader::follow() {
    m_.trace("reader {} follows from {}", number_, *seen_);
    ask("/v1/events", [this](const net::Response& response) {
        if (response.status == 410) {
            m_.trace("reader {} has to list again", number_);
            seen_.reset();
            listed_ = 0;
            return;
        }
        if (!response.stream) m_.trace.violated("reader {} can't follow: {}", number_, response.status);
        following_ = true;
    });
}

void Reader::event(const std::string& text) {
    if (!text.starts_with("id: ")) return;
    const auto number = field(text, "id: ");
    std::uint64_t id = 0;
    std::from_chars(number.data(), number.data() + number.size(), id);
    const auto type = field(text, "event: ");
    m_.trace("reader {}: {} {}", number_, id, type);
    if (id <= *seen_) m_.trace.violated("reader {} was told event {} after {}", number_, id, *seen_);
    told_.event(id, text);
    seen_ = id;
    const auto data = json::parse(field(text, "data: "));
    const auto& resource = data.at("data");
    if (type == "vm.deleted") {
        vms_.erase(text_of(resource, "id"));
    } else if (type.starts_with("vm.")) {
        vms_[text_of(resource, "id")] = steady(resource);
    } else if (type == "operation.updated") {
        told_.operation(resource, Told::As::it_was);
        operations_[text_of(resource, "id")] = text_of(resource, "state");
    } else if (type == "image.updated") {
        if (text_of(resource, "state") == "deleted")
            images_.erase(text_of(resource, "name"));
        else
            images_[text_of(resource, "name")] = text_of(resource, "state");
    }
}

}  // namespace ghost::simulation
