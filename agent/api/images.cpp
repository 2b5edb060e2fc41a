#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

net::Response list(const ImageService& images, EventLog& events, const net::Request& request) {
    QueryReader query{request};
    const auto name = query.text("name");
    const auto page = read_page(query);
    if (const auto read = query.finish(); !read) return to_problem(read.error(), request.context);
    boost::json::array items;
    std::string next;
    for (auto it = images.all().upper_bound(page.after); it != images.all().end(); ++it) {
        if (name && it->first != *name) continue;
        if (items.size() == page.limit) {
            next = page_token(std::string_view{items.back().at("name").as_string()});
            break;
        }
        items.push_back(to_resource(it->second, images.used_by(it->second)));
    }
    return list_reply(std::move(items), next, events.place_of_list());
}

net::Response read(const ImageService& images, const net::Request& request) {
    if (const auto none = no_query(request); !none) return to_problem(none.error(), request.context);
    const auto& name = request.params.at("name");
    const auto* image = images.find(name);
    if (image == nullptr) return to_problem({base::Errc::not_found, "no image named " + name}, request.context);
    return json_reply(200, to_resource(*image, images.used_by(*image)));
}

asio::awaitable<net::Response> add(ImageService& images, const Answers& answers, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto body = read_body(request);
    if (!body) co_return to_problem(body.error(), request.context);
    auto what = read_add_image(*body);
    if (!what) co_return to_problem(what.error(), request.context);
    const auto begun = co_await images.add(request.context, std::move(*what));
    co_return co_await answers.accepted(begun, *wait, request.context);
}

asio::awaitable<net::Response> remove(ImageService& images, const Answers& answers, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto begun = co_await images.remove(request.context, request.params.at("name"));
    co_return co_await answers.accepted(begun, *wait, request.context);
}

}  // namespace

void add_image_routes(net::Router& router, ImageService& images, EventLog& events, const Answers& answers) {
    using net::Method;
    router.add(Method::get, "/v1/images", [&images, &events](net::Request r) -> asio::awaitable<net::Response> {
        co_return list(images, events, r);
    });
    router.add(Method::post, "/v1/images",
               [&images, &answers](net::Request r) { return add(images, answers, std::move(r)); });
    router.add(Method::get, "/v1/images/{name}",
               [&images](net::Request r) -> asio::awaitable<net::Response> { co_return read(images, r); });
    router.add(Method::del, "/v1/images/{name}",
               [&images, &answers](net::Request r) { return remove(images, answers, std::move(r)); });
}

}  // namespace ghost::agent::api
