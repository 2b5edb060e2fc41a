#include "net/router.hpp"

#include "net/problem.hpp"
#include "net/text.hpp"

#include <algorithm>
#include <array>
#include <cassert>

namespace ghost::net {
namespace {

std::vector<std::string> split(std::string_view path) {
    std::vector<std::string> parts;
    path.remove_prefix(path.starts_with('/') ? 1 : 0);
    while (true) {
        const auto slash = path.find('/');
        parts.emplace_back(path.substr(0, slash));
        if (slash == std::string_view::npos) return parts;
        path.remove_prefix(slash + 1);
    }
}

bool is_param(std::string_view part) { return part.size() > 2 && part.front() == '{' && part.back() == '}'; }
std::string_view param_name(std::string_view part) { return part.substr(1, part.size() - 2); }

// The parts decoded; nullopt when one doesn't decode to UTF-8.
std::optional<std::vector<std::string>> decode(std::vector<std::string> parts) {
    for (auto& part : parts) {
        auto decoded = percent_decode(part);
        if (!decoded || !is_utf8(*decoded)) return std::nullopt;
        part = std::move(*decoded);
    }
    return parts;
}

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
    return std::ranges::equal(pattern, path, [](const std::string& wanted, const std::string& part) {
        return is_param(wanted) ? !part.empty() : wanted == part;
    });
}

// "/v1/vms/import" is a better match than "/v1/vms/{vm}": the first part that differs in kind decides.
bool more_literal(const std::vector<std::string>& a, const std::vector<std::string>& b) {
    return std::ranges::lexicographical_compare(a, b, {}, is_param, is_param);
}

constexpr std::array all_methods{Method::get,   Method::head, Method::post,   Method::put,
                                 Method::patch, Method::del,  Method::options};

std::string allow_list(const std::vector<Method>& methods) {
    std::string list;
    for (const auto method : all_methods) {
        const bool allowed = method == Method::options || std::ranges::find(methods, method) != methods.end() ||
                             (method == Method::head && std::ranges::find(methods, Method::get) != methods.end());
        if (!allowed) continue;
        list.append(list.empty() ? "" : ", ").append(name_of(method));
    }
    return list;
}

Response options_answer(std::string allow) {
    Response response{.status = 204, .content_type = {}};
    response.headers.set("Allow", std::move(allow));
    return response;
}

}  // namespace

void Router::add(Method method, std::string_view pattern, Handler handler) {
    assert(pattern.starts_with('/') && handler);
    auto parts = split(pattern);
    assert(std::ranges::none_of(routes_, [&](const Route& r) { return r.method == method && r.pattern == pattern; }));
    routes_.push_back({method, std::string{pattern}, std::move(parts), std::move(handler)});
}

Router::Match Router::match(Method method, const std::vector<std::string>& path) const {
    Match found;
    const auto wanted = [&](Method candidate) {
        return candidate == method || (method == Method::head && candidate == Method::get);
    };
    for (const auto& route : routes_) {
        if (!matches(route.parts, path)) continue;
        found.methods.push_back(route.method);
        if (!wanted(route.method)) continue;
        // A route of HEAD's own beats the GET that would answer it.
        const bool better = !found.route || more_literal(route.parts, found.route->parts) ||
                            (route.parts == found.route->parts && route.method == method);
        if (better) found.route = &route;
    }
    return found;
}

boost::asio::awaitable<Response> Router::serve(Request request) const {
    const auto& id = request.context.request_id;
    if (request.path == "*") {
        if (request.method == Method::options)
            co_return options_answer(allow_list({all_methods.begin(), all_methods.end()}));
        co_return problem(404, "not_found", "Not found", "nothing is at *", id);
    }
    const auto path = decode(split(request.path));
    if (!path)
        co_return problem(400, "bad_request", "Bad request", "the path has a malformed escape or isn't UTF-8", id);

    const auto found = match(request.method, *path);
    if (found.methods.empty())
        co_return problem(404, "not_found", "Not found", "no resource has the path " + request.path, id);
    if (!found.route) {
        auto allow = allow_list(found.methods);
        if (request.method == Method::options) co_return options_answer(std::move(allow));
        auto response = problem(405, "method_not_allowed", "Method not allowed", "allowed here: " + allow, id);
        response.headers.set("Allow", std::move(allow));
        co_return response;
    }
    for (std::size_t i = 0; i < path->size(); ++i) {
        const auto& part = found.route->parts[i];
        if (is_param(part)) request.params.insert_or_assign(std::string{param_name(part)}, (*path)[i]);
    }
    auto response = co_await found.route->handler(std::move(request));
    co_return response;
}

std::string_view Router::pattern_of(Method method, std::string_view path) const {
    const auto parts = decode(split(path));
    if (!parts) return "unmatched";
    const auto found = match(method, *parts);
    return found.route ? std::string_view{found.route->pattern} : "unmatched";
}

std::vector<RouteName> Router::routes() const {
    std::vector<RouteName> names;
    names.reserve(routes_.size());
    for (const auto& route : routes_) names.push_back({route.method, route.pattern});
    return names;
}

}  // namespace ghost::net
