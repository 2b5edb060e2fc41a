#include "agent/api/openapi.hpp"

#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"
#include "agent/json_text.hpp"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <memory>

namespace ghost::agent::api {
namespace json = boost::json;
namespace asio = boost::asio;
namespace {

json::value scalar(const YAML::Node& node) {
    const auto& text = node.Scalar();
    if (node.Tag() == "!") return json::value(text);  // quoted: a string, whatever it looks like
    if (text == "true" || text == "false") return json::value(text == "true");
    if (text == "null" || text == "~") return nullptr;
    const auto* end = text.data() + text.size();
    std::int64_t whole = 0;
    if (const auto [at, ec] = std::from_chars(text.data(), end, whole); ec == std::errc{} && at == end) return whole;
    double number = 0;
    if (const auto [at, ec] = std::from_chars(text.data(), end, number); ec == std::errc{} && at == end) return number;
    return json::value(text);
}

json::value convert(const YAML::Node& node) {
    switch (node.Type()) {
        case YAML::NodeType::Map: {
            json::object out;
            for (const auto& entry : node) out[entry.first.Scalar()] = convert(entry.second);
            return out;
        }
        case YAML::NodeType::Sequence: {
            json::array out;
            for (const auto& item : node) out.push_back(convert(item));
            return out;
        }
        case YAML::NodeType::Scalar: return scalar(node);
        case YAML::NodeType::Null:
        case YAML::NodeType::Undefined: return nullptr;
    }
    return nullptr;
}

}  // namespace

json::value openapi_document() { return convert(YAML::Load(std::string{openapi_yaml()})); }

void add_openapi_route(net::Router& router) {
    // Read once, however many agents a simulation starts.
    static const auto text = [] {
        auto document = openapi_document();
        document.as_object()["info"].as_object()["version"] = GHOST_VERSION;
        return json_text(document) + "\n";
    }();
    router.add(net::Method::get, "/v1/openapi.json", [](net::Request r) -> asio::awaitable<net::Response> {
        if (const auto none = no_query(r); !none) co_return to_problem(none.error(), r.context);
        net::Response response;
        response.body = text;
        co_return response;
    });
}

}  // namespace ghost::agent::api
