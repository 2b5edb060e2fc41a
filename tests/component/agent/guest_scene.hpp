// A world with one VM whose guest agent runs programs and hands out files.
#pragma once

#include "agent/guest/upload_tools.hpp"
#include "component/agent/world.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::tests {

// What came of a GET of a file.
struct Download {
    unsigned status = 0;
    std::string code;    // of the problem, when there is no stream
    std::string detail;  // likewise
    std::string bytes;
    std::size_t pieces = 0;
    bool ended = false;
    bool broken = false;            // the connection was cut
    std::function<void()> between;  // called after each piece
    boost::asio::cancellation_signal leave;
};

struct GuestScene : World {
    using How = virt::GuestRun::How;

    explicit GuestScene(bool guest_access = true) {
        before_boot = [this](fakes::FakeHypervisor& next) {
            next.on_guest_run = [this](const std::string& uuid, const virt::GuestCommand& command) {
                return run(uuid, command);
            };
        };
        boot();
        add_image();
        const auto made = post("/v1/vms?wait=60", vm_body("web", {{"guest_access", guest_access}}));
        REQUIRE(made.status == 201);
        id = made.text("/id");
    }

    // What people's programs come to, the files' tools apart.
    std::function<virt::GuestRun(const virt::GuestCommand&)> program = [](const virt::GuestCommand&) {
        return virt::GuestRun{.how = How::exited, .output = "hi\n"};
    };
    // A tool of the files' that fails with these words.
    std::string broken_tool;
    std::string tool_words;
    std::vector<std::string> directories;
    std::string cloud_init = R"({"status": "done"})";
    std::string host_keys;
    std::size_t key_questions = 0;
    std::vector<virt::GuestCommand> programs;
    std::vector<std::string> tools;  // "make", "mode", "finish", "remove"
    std::string mode;                // that was set last
    std::string id;

    static virt::GuestRun exited(int code = 0, std::string output = {}, std::string errors = {}) {
        return {.how = How::exited, .exit_code = code, .output = std::move(output), .errors = std::move(errors)};
    }

    std::map<std::string, std::string>& guest_files() { return hypervisor->guest_files(id); }

    static boost::json::object command(std::initializer_list<std::string_view> argv) {
        boost::json::array list;
        for (const auto argument : argv) list.emplace_back(argument);
        return {{"command", std::move(list)}};
    }
    Reply exec(boost::json::object body = command({"ls", "-l"}), const std::string& query = "?wait=60") {
        return post("/v1/vms/web/exec" + query, std::move(body));
    }

    std::shared_ptr<Download> begin_download(const std::string& path, std::function<void()> between = {}) {
        auto download = std::make_shared<Download>();
        download->between = std::move(between);
        boost::asio::co_spawn(
            loop, fetch(*this, request(net::Method::get, path), download),
            boost::asio::bind_cancellation_slot(download->leave.slot(),
                                                [download](const std::exception_ptr&) { download->ended = true; }));
        settle();
        return download;
    }
    Download& download(const std::string& path) {
        last_ = begin_download(path);
        for (int i = 0; i < 1000 && !last_->ended; ++i) pass(std::chrono::milliseconds{100});
        REQUIRE(last_->ended);
        return *last_;
    }

    // The body as these pieces, one after the other; then it ends, or fails.
    static net::BodyReader body_of(std::vector<std::string> pieces, std::optional<base::Error> end = {}) {
        auto left = std::make_shared<std::vector<std::string>>(std::move(pieces));
        return [left, end = std::move(end)] { return next_piece(left, end); };
    }
    Reply upload(const std::string& query, net::BodyReader body, std::optional<std::uint64_t> size = {}) {
        return call(net::Method::put, "/v1/vms/web/files" + query, {}, [&](net::Request& request) {
            request.body_stream = std::move(body);
            request.body_size = size;
        });
    }
    Reply upload(const std::string& query, std::string bytes) {
        return call(net::Method::put, "/v1/vms/web/files" + query, {},
                    [&](net::Request& request) { request.body = std::move(bytes); });
    }

    static net::Request request(net::Method method, const std::string& path) {
        const auto parsed = net::parse_target("/v1/vms/web/files?path=" + net::percent_encode(path));
        net::Request request;
        request.method = method;
        request.path = parsed->path;
        request.query = parsed->query;
        request.context = {"req-1", "", {base::Principal::Kind::socket, "uid:0", true}};
        return request;
    }

private:
    virt::GuestRun run(const std::string& uuid, const virt::GuestCommand& command) {
        const auto& argv = command.argv;
        if (argv.size() == 3 && argv[0] == "/bin/sh" && argv[2].contains("cloud-init")) return exited(0, cloud_init);
        if (argv.size() == 3 && argv[0] == "/bin/sh" && argv[2].contains("ssh_host")) {
            ++key_questions;
            return exited(0, host_keys);
        }
        constexpr std::string_view prefix = "ghost-upload-";
        if (argv.size() < 4 || !argv[3].starts_with(prefix)) {
            programs.push_back(command);
            return program(command);
        }
        const auto tool = argv[3].substr(prefix.size());
        tools.push_back(tool);
        if (tool == broken_tool) return exited(1, {}, tool_words);
        auto& files = hypervisor->guest_files(uuid);
        const auto& first = argv.at(4);
        if (tool == "make") {
            if (std::ranges::find(directories, first) != directories.end()) return exited(agent::is_a_directory);
            directories.push_back(argv.at(5));
            return exited();
        }
        if (tool == "mode") {
            mode = argv.at(6);
            return files.contains(first + '/' + argv.at(5)) ? exited() : exited(1, {}, "chmod: No such file");
        }
        const auto draft = files.find(argv.at(5));
        if (tool == "finish" && draft == files.end()) return exited(1, {}, "mv: No such file");
        if (tool == "finish") files[argv.at(6)] = draft->second;
        files.erase(argv.at(5));
        std::erase(directories, first);
        return exited();
    }

    static boost::asio::awaitable<void> fetch(GuestScene& world, net::Request request,
                                              std::shared_ptr<Download> download) {
        auto response = co_await world.app->api()(std::move(request));
        download->status = response.status;
        if (!response.stream) {
            if (!response.body.empty()) {
                const auto problem = boost::json::parse(response.body);
                download->code = problem.at("code").as_string();
                download->detail = problem.at("detail").as_string();
            }
            co_return;
        }
        try {
            while (const auto chunk = co_await response.stream()) {
                download->bytes += *chunk;
                ++download->pieces;
                if (download->between) download->between();
            }
        } catch (const std::runtime_error&) {
            download->broken = true;
        }
    }
    static boost::asio::awaitable<base::Result<std::optional<std::string>>> next_piece(
        std::shared_ptr<std::vector<std::string>> left, std::optional<base::Error> end) {
        if (left->empty() && end) co_return base::fail(*end);
        if (left->empty()) co_return std::nullopt;
        auto piece = std::move(left->front());
        left->erase(left->begin());
        co_return std::optional{std::move(piece)};
    }

    std::shared_ptr<Download> last_;
};

// The events of what was done in guests, as they were told.
inline std::vector<boost::json::object> accesses(const Watcher& watcher) {
    std::vector<boost::json::object> all;
    for (const auto& event : watcher.events)
        if (event.type == "vm.guest_access") all.push_back(event.data.as_object());
    return all;
}

}  // namespace ghost::tests
