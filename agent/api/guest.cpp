// Into the guests: programs and files.
#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"
#include "agent/json_reader.hpp"
#include "net/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::size_t max_arguments = 256;
constexpr std::size_t max_variables = 256;
constexpr std::size_t max_text = std::size_t{1024} * 1024;  // of an argument: as long as a body may be
constexpr std::uint64_t max_timeout_s = 3600;
constexpr std::size_t max_path = 4096;
constexpr unsigned max_mode = 07777;
constexpr std::string_view route_start = "/v1/vms/";
constexpr std::string_view route_end = "/files";
// A program that is given an environment has no other: without a path it would find none of its own programs.
constexpr std::string_view default_path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

bool has_nul(std::string_view text) { return text.contains('\0'); }

void read_command(JsonReader& reader, GuestProgram& program) {
    reader.require("command");
    program.argv = reader.strings("command", max_arguments, max_text).value_or(std::vector<std::string>{});
    if (!reader.has("command")) return;
    if (program.argv.empty() || program.argv.front().empty())
        reader.fault("command", "expected a program and its arguments");
    if (std::ranges::any_of(program.argv, has_nul)) reader.fault("command", "no argument may contain a NUL character");
}

void read_environment(JsonReader& reader, GuestProgram& program) {
    const auto* variables = reader.object("env");
    if (variables == nullptr || variables->empty()) return;
    if (variables->size() > max_variables)
        return reader.fault("env", fmt::format("at most {} variables", max_variables));
    bool has_path = false;
    for (const auto& variable : *variables) {
        const std::string_view name = variable.key();
        if (name.empty() || name.contains('=') || has_nul(name))
            reader.fault("env", "a variable's name is not empty and contains neither = nor a NUL character");
        else if (!variable.value().is_string() || has_nul(variable.value().get_string()))
            reader.fault("env", fmt::format("{}: expected a string without NUL characters", name));
        else
            program.environment.push_back(fmt::format("{}={}", name, std::string_view{variable.value().get_string()}));
        has_path = has_path || name == "PATH";
    }
    if (!has_path) program.environment.emplace_back(default_path);
}

base::Result<GuestProgram> read_program(const net::Request& request) {
    const auto body = read_body(request);
    if (!body) return base::fail(body.error());
    GuestProgram program;
    const auto read = read_object(*body, [&](JsonReader& reader) {
        read_command(reader, program);
        read_environment(reader, program);
        program.input = reader.string("stdin", virt::max_guest_input).value_or("");
        if (const auto limit = reader.integer("timeout_s", 1, max_timeout_s))
            program.limit = std::chrono::seconds{*limit};
    });
    if (!read) return base::fail(read.error());
    return program;
}

asio::awaitable<net::Response> exec(GuestService& guests, const Answers& answers, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    auto program = read_program(request);
    if (!program) co_return to_problem(program.error(), request.context);
    const auto begun = co_await guests.exec(request.context, request.params.at("vm"), std::move(*program));
    co_return co_await answers.accepted(begun, *wait, request.context);
}

std::string read_path(QueryReader& query) {
    auto path = query.text("path");
    if (!path)
        query.fault("path", "is required: the absolute path of a file in the guest");
    else if (!path->starts_with('/') || path->size() > max_path || has_nul(*path) || !net::is_utf8(*path))
        query.fault("path", fmt::format("expected an absolute path of at most {} bytes", max_path));
    return path.value_or("");
}

bool names_directory(std::string_view path) {
    const auto last = path.substr(path.rfind('/') + 1);
    return last.empty() || last == "." || last == "..";
}

std::optional<unsigned> read_mode(QueryReader& query) {
    const auto text = query.text("mode");
    if (!text) return std::nullopt;
    unsigned mode = 0;
    const bool octal =
        !text->empty() && text->size() <= 5 && std::ranges::all_of(*text, [](char c) { return c >= '0' && c <= '7'; });
    if (octal)
        for (const char digit : *text) mode = mode * 8 + static_cast<unsigned>(digit - '0');
    if (!octal || mode > max_mode) {
        query.fault("mode", fmt::format("expected an octal number from 0 to 7777, as 0644, got \"{}\"", *text));
        return std::nullopt;
    }
    return mode;
}

asio::awaitable<net::Response> read_file(GuestService& guests, net::Request request) {
    QueryReader query{request};
    auto path = read_path(query);
    if (const auto read = query.finish(); !read) co_return to_problem(read.error(), request.context);
    auto source = co_await guests.read_file(request.context, request.params.at("vm"), std::move(path));
    if (!source) co_return to_problem(source.error(), request.context);
    net::Response response;
    response.content_type = "application/octet-stream";
    mark_as_guests(response);
    response.stream = std::move(*source);
    co_return response;
}

// A body that is here already, as its only piece.
asio::awaitable<base::Result<std::optional<std::string>>> next_of(std::shared_ptr<std::optional<std::string>> whole) {
    co_return std::exchange(*whole, std::nullopt);
}

net::BodyReader body_of(net::Request& request) {
    if (request.body_stream) return std::move(request.body_stream);
    request.body_size = request.body.size();
    auto whole = std::make_shared<std::optional<std::string>>(std::move(request.body));
    return [whole = std::move(whole)] { return next_of(whole); };
}

asio::awaitable<net::Response> write_file(GuestService& guests, net::Request request) {
    QueryReader query{request};
    GuestUpload upload;
    upload.path = read_path(query);
    if (upload.path.starts_with('/') && names_directory(upload.path)) query.fault("path", "names a directory");
    upload.mode = read_mode(query);
    if (const auto read = query.finish(); !read) co_return to_problem(read.error(), request.context);
    upload.body = body_of(request);
    upload.size = request.body_size;
    const auto written = co_await guests.write_file(request.context, request.params.at("vm"), std::move(upload));
    if (!written) co_return to_problem(written.error(), request.context);
    net::Response response;
    response.status = 204;
    response.content_type.clear();
    co_return response;
}

}  // namespace

bool streams_body(net::Method method, std::string_view path) {
    if (method != net::Method::put || !path.starts_with(route_start) || !path.ends_with(route_end)) return false;
    path.remove_prefix(route_start.size());
    return path.find('/') == path.size() - route_end.size() && path.size() > route_end.size();
}

void add_guest_routes(net::Router& router, GuestService& guests, const Answers& answers) {
    using net::Method;
    router.add(Method::post, "/v1/vms/{vm}/exec",
               [&guests, &answers](net::Request r) { return exec(guests, answers, std::move(r)); });
    router.add(Method::get, "/v1/vms/{vm}/files",
               [&guests](net::Request r) { return read_file(guests, std::move(r)); });
    router.add(Method::put, "/v1/vms/{vm}/files",
               [&guests](net::Request r) { return write_file(guests, std::move(r)); });
}

}  // namespace ghost::agent::api
