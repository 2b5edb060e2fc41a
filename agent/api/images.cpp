#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

boost::json::value text_or_null(const std::string& text) {
    return text.empty() ? boost::json::value(nullptr) : boost::json::value(text);
}

boost::json::object remote_resource(const CatalogueImage& entry, const ImageService& images) {
    const auto* here = images.find(entry.name);
    const bool cached = here != nullptr && here->source == entry.name;
    return {{"name", entry.name},
            {"description", entry.description},
            {"user", text_or_null(entry.user)},
            {"architecture", entry.architecture},
            {"url", entry.url},
            {"mirrors", boost::json::array(entry.mirrors.begin(), entry.mirrors.end())},
            {"checksum", text_or_null(entry.checksum)},
            {"checksums", text_or_null(entry.checksums)},
            {"signature", text_or_null(entry.signature)},
            {"keyring", text_or_null(entry.keyring_name)},
            {"state", cached ? boost::json::value(name_of(here->state)) : boost::json::value(nullptr)}};
}

net::Response list_remote(const ImageService& images, EventLog& events, const std::optional<std::string>& name,
                          const Page& page) {
    boost::json::array items;
    std::string next;
    const auto& catalogue = images.catalogue();
    for (auto it = catalogue.upper_bound(page.after); it != catalogue.end(); ++it) {
        if (name && it->first != *name) continue;
        if (items.size() == page.limit) {
            next = page_token(std::string_view{items.back().at("name").as_string()});
            break;
        }
        items.push_back(remote_resource(it->second, images));
    }
    return list_reply(std::move(items), next, events.place_of_list());
}

net::Response list(const ImageService& images, EventLog& events, const net::Request& request) {
    QueryReader query{request};
    const auto name = query.text("name");
    const auto remote = query.boolean("remote");
    const auto page = read_page(query);
    if (const auto read = query.finish(); !read) return to_problem(read.error(), request.context);
    if (remote.value_or(false)) return list_remote(images, events, name, page);
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
    auto what = read_add_image(*body, images.catalogue());
    if (!what) co_return to_problem(what.error(), request.context);
    const auto begun = co_await images.add(request.context, std::move(*what));
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
    router.add(Method::del, "/v1/images/{name}", [&images, &answers](net::Request r) {
        return answers.change(std::move(r), [&images](const net::Request& of) {
            return images.remove(of.context, of.params.at("name"));
        });
    });
    router.add(Method::post, "/v1/image-cache/prune", [&images, &answers](net::Request r) {
        return answers.change(std::move(r), [&images](const net::Request& of) { return images.prune(of.context); });
    });
    router.add(Method::post, "/v1/images/{name}/refresh", [&images, &answers](net::Request r) {
        return answers.change(std::move(r), [&images](const net::Request& of) {
            return images.refresh(of.context, of.params.at("name"));
        });
    });
}

}  // namespace ghost::agent::api
