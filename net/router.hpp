// Maps a method and a path template to a handler. Filled once at start-up,
// read-only afterwards.
#pragma once

#include "net/http.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace ghost::net {

// What a request was routed to, for metrics and logs: the template, never the path itself.
struct RouteName {
    Method method = Method::get;
    std::string pattern;
};

class Router {
public:
    // `pattern` has literal parts and {name} parts: "/v1/vms/{vm}/start". A GET route also answers HEAD.
    void add(Method method, std::string_view pattern, Handler handler);

    // Unknown paths give the problem not_found (404); known paths with another method 405 with Allow; OPTIONS gives
    // 204 with Allow; a part that doesn't decode 400.
    [[nodiscard]] boost::asio::awaitable<Response> serve(Request request) const;

    // The template that serve() would use, or "unmatched".
    [[nodiscard]] std::string_view pattern_of(Method method, std::string_view path) const;
    [[nodiscard]] std::vector<RouteName> routes() const;

private:
    struct Route {
        Method method;
        std::string pattern;
        std::vector<std::string> parts;
        Handler handler;
    };
    struct Match {
        const Route* route = nullptr;
        std::vector<Method> methods = {};  // that the path has, whatever was asked
    };
    [[nodiscard]] Match match(Method method, const std::vector<std::string>& path) const;

    std::vector<Route> routes_;
};

}  // namespace ghost::net
