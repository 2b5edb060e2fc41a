#include "component/agent/guest_scene.hpp"

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

std::string some_bytes(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
    return bytes;
}

// Nothing is left behind of an upload that came to nothing.
void check_untouched(GuestScene& world, const std::map<std::string, std::string>& before) {
    world.settle();
    CHECK(world.guest_files() == before);
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
}

std::string last_result(const Watcher& watcher) {
    const auto told = accesses(watcher);
    return told.empty() ? "" : std::string{told.back().at("result").as_string()};
}

}  // namespace

TEST_CASE("a file is read from the guest piece by piece") {
    GuestScene world;
    const auto watcher = world.watch();
    const auto size = GENERATE(std::size_t{0}, std::size_t{5}, virt::max_guest_piece, 2 * virt::max_guest_piece + 7);
    const auto bytes = some_bytes(size);
    world.guest_files()["/var/a file"] = bytes;
    const auto& read = world.download("/var/a file");
    CHECK(read.status == 200);
    CHECK_FALSE(read.broken);
    CHECK((read.bytes == bytes));
    world.settle();
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
    const auto told = accesses(*watcher);
    REQUIRE(told.size() == 1);
    CHECK(told[0].at("action") == "file_read");
    CHECK(told[0].at("path") == "/var/a file");
    CHECK(told[0].at("result") == "succeeded");
    CHECK(told[0].at("bytes").to_number<std::size_t>() == size);
    CHECK(told[0].at("by") == "socket:uid:0");
}

TEST_CASE("what is wrong with a file's beginning is a problem of its own") {
    GuestScene world;
    const auto watcher = world.watch();
    CHECK(world.download("/nowhere").status == 404);
    CHECK(last_result(*watcher) == "not_found");
    world.guest_files()["/etc/shadow"] = "x";
    world.hypervisor->fail(
        "open_guest_file " + world.id,
        {base::Errc::state_conflict, "the guest agent says: failed to open file: Permission denied"});
    CHECK(world.download("/etc/shadow").status == 403);
    world.hypervisor->fail("read_guest_file " + world.id,
                           {base::Errc::state_conflict, "the guest agent says: failed to read file: Is a directory"});
    CHECK(world.download("/etc/shadow").status == 404);
    world.hypervisor->fail("read_guest_file " + world.id, {base::Errc::deadline_exceeded, "silence"});
    CHECK(world.download("/etc/shadow").status == 504);
    world.settle();
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
    for (const auto* path : {"", "relative", "~/x"}) {
        CAPTURE(path);
        CHECK(world.get(std::string{"/v1/vms/web/files?path="} + path).status == 422);
    }
    CHECK(world.get("/v1/vms/web/files").status == 422);
    CHECK(world.get("/v1/vms/web/files?path=/" + std::string(4096, 'x')).status == 422);
}

TEST_CASE("what goes wrong in the middle of a file cuts the connection") {
    GuestScene world;
    const auto watcher = world.watch();
    world.guest_files()["/big"] = some_bytes(3 * virt::max_guest_piece);
    const auto broken = world.begin_download("/big", [&world] {
        world.hypervisor->fail("read_guest_file " + world.id, {base::Errc::deadline_exceeded, "silence"});
    });
    CHECK(broken->ended);
    CHECK(broken->broken);
    CHECK(broken->pieces == 1);
    CHECK(last_result(*watcher) == "deadline_exceeded");
    world.settle();
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);

    // Likewise when access is taken back meanwhile.
    world.hypervisor->heal("read_guest_file " + world.id);
    std::shared_ptr<std::optional<Reply>> patched;
    const auto stopped = world.begin_download("/big", [&] {
        if (!patched)
            patched = world.send(net::Method::patch, "/v1/vms/web", json::object{{"spec", {{"guest_access", false}}}});
        world.hypervisor->answer_late("read_guest_file", 1s);
    });
    world.pass(5s);
    CHECK(stopped->ended);
    CHECK(stopped->broken);
    CHECK(last_result(*watcher) == "forbidden");
}

TEST_CASE("a file that is larger than may be is cut off") {
    GuestScene world;
    world.shut_down();
    world.config.guest_access.max_file_size = 2 * virt::max_guest_piece;
    world.boot();
    world.pass(1s);
    world.guest_files()["/fits"] = some_bytes(2 * virt::max_guest_piece);
    world.guest_files()["/big"] = some_bytes(2 * virt::max_guest_piece + 1);
    CHECK_FALSE(world.download("/fits").broken);
    const auto& big = world.download("/big");
    CHECK(big.status == 200);
    CHECK(big.broken);
    world.settle();
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);

    const auto before = world.guest_files();
    const auto opened = world.hypervisor->count("open_guest_file");
    const auto told = world.upload("?path=/new", GuestScene::body_of({}), 2 * virt::max_guest_piece + 1);
    CHECK(told.status == 413);
    CHECK(told.text("/detail").contains("guest_access.max_file_size"));
    CHECK(world.hypervisor->count("open_guest_file") == opened);
    CHECK(
        world.upload("?path=/new", GuestScene::body_of(std::vector<std::string>(3, some_bytes(virt::max_guest_piece))))
            .status == 413);
    check_untouched(world, before);
}

TEST_CASE("a reader that goes away leaves no file open in the guest") {
    GuestScene world;
    const auto watcher = world.watch();
    world.guest_files()["/big"] = some_bytes(3 * virt::max_guest_piece);
    world.hypervisor->answer_late("read_guest_file", 5s);
    const auto left = world.begin_download("/big");
    world.pass(7s);
    CHECK(left->pieces == 1);
    left->leave.emit(boost::asio::cancellation_type::terminal);
    world.settle();
    CHECK(left->ended);
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
    CHECK(last_result(*watcher) == "cancelled");

    // Also when it goes before the first piece.
    const auto early = world.begin_download("/big");
    early->leave.emit(boost::asio::cancellation_type::terminal);
    world.pass(10s);
    CHECK(early->ended);
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
}

TEST_CASE("files that are moved at a time have their number") {
    GuestScene world;
    world.guest_files()["/big"] = some_bytes(3 * virt::max_guest_piece);
    world.hypervisor->answer_late("read_guest_file", 60s);
    std::vector<std::shared_ptr<Download>> readers;
    readers.reserve(agent::GuestService::transfers_each);
    for (std::size_t i = 0; i < agent::GuestService::transfers_each; ++i)
        readers.push_back(world.begin_download("/big"));
    CHECK(world.download("/big").status == 429);
    CHECK(world.upload("?path=/new", "x").status == 429);
    world.hypervisor->answer_late("read_guest_file", 0s);
    world.pass(5min);
    for (const auto& reader : readers) CHECK((reader->ended && !reader->broken));
    CHECK(world.download("/big").status == 200);
}

TEST_CASE("a file is written beside, and put in place when it is whole") {
    GuestScene world;
    const auto watcher = world.watch();
    world.guest_files()["/etc/motd"] = "old";
    CHECK(world.upload("?path=/etc/motd", "new").status == 204);
    CHECK(world.guest_files() == std::map<std::string, std::string>{{"/etc/motd", "new"}});
    CHECK(world.tools == std::vector<std::string>{"make", "mode", "finish"});
    CHECK(world.mode == "0644");
    const auto bytes = some_bytes(2 * virt::max_guest_piece + 7);
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < bytes.size(); at += 100'000) pieces.push_back(bytes.substr(at, 100'000));
    world.tools.clear();
    CHECK(world.upload("?path=/srv/data&mode=0600", GuestScene::body_of(pieces), bytes.size()).status == 204);
    CHECK((world.guest_files().at("/srv/data") == bytes));
    CHECK(world.mode == "0600");
    CHECK(world.directories.empty());
    CHECK(world.upload("?path=/empty", GuestScene::body_of({}), 0).status == 204);
    CHECK(world.guest_files().at("/empty").empty());
    CHECK(world.hypervisor->open_guest_files(world.id) == 0);
    CHECK(world.guest_files().size() == 3);
    const auto told = accesses(*watcher);
    REQUIRE(told.size() == 3);
    CHECK(told[1].at("action") == "file_write");
    CHECK(told[1].at("path") == "/srv/data");
    CHECK(told[1].at("bytes").to_number<std::size_t>() == bytes.size());
    CHECK(told[1].at("result") == "succeeded");
}

TEST_CASE("an upload that comes to nothing leaves what was there") {
    GuestScene world;
    const auto watcher = world.watch();
    world.guest_files()["/etc/motd"] = "old";
    const auto before = world.guest_files();
    const std::string big = some_bytes(virt::max_guest_piece);
    SECTION("the client goes away") {
        const auto broken = world.upload(
            "?path=/etc/motd",
            GuestScene::body_of({big, big}, base::Error{base::Errc::source_unavailable, "the connection broke off"}));
        CHECK(broken.status == 502);
        CHECK(last_result(*watcher) == "source_unavailable");
    }
    SECTION("it is shorter than was told") {
        CHECK(world.upload("?path=/etc/motd", GuestScene::body_of({"ab"}), 3).status == 502);
    }
    SECTION("the guest's disk is full") {
        world.hypervisor->fail("write_guest_file " + world.id,
                               {base::Errc::state_conflict, "the guest agent says: No space left on device"});
        CHECK(world.upload("?path=/etc/motd", GuestScene::body_of({big, big})).status == 507);
    }
    SECTION("the guest doesn't put it in place") {
        world.broken_tool = "finish";
        world.tool_words = "mv: cannot move: Operation not permitted\n";
        const auto refused = world.upload("?path=/etc/motd", "new");
        CHECK(refused.status == 403);
        CHECK(refused.text("/detail") == "the guest says: mv: cannot move: Operation not permitted");
    }
    SECTION("its mode can't be set") {
        world.broken_tool = "mode";
        CHECK(world.upload("?path=/etc/motd&mode=0644", "new").status == 409);
    }
    SECTION("there is no place for it") {
        world.broken_tool = "make";
        world.tool_words = "mkdir: cannot create directory: No such file or directory\n";
        CHECK(world.upload("?path=/etc/motd", "new").status == 404);
        CHECK(world.hypervisor->count("open_guest_file") == 0);
    }
    SECTION("its draft can't be opened") {
        world.hypervisor->fail("open_guest_file " + world.id, {base::Errc::state_conflict, "no"});
        CHECK(world.upload("?path=/etc/motd", "new").status == 409);
        CHECK(world.directories.empty());
    }
    SECTION("it is a directory") {
        world.directories.emplace_back("/etc");
        CHECK(world.upload("?path=/etc", "new").status == 409);
        CHECK(world.hypervisor->count("open_guest_file") == 0);
    }
    SECTION("its name says a directory, or its mode nothing") {
        for (const auto* query : {"?path=/etc/", "?path=/etc/..", "?path=/a&mode=8", "?path=/a&mode=17777",
                                  "?path=/a&mode=", "?path=etc", ""}) {
            CAPTURE(query);
            CHECK(world.upload(query, "new").status == 422);
        }
    }
    SECTION("it can't be closed") {
        world.hypervisor->fail("close_guest_file " + world.id, {base::Errc::state_conflict, "no"}, 1,
                               fakes::FakeHypervisor::When::before_effect);
        CHECK(world.upload("?path=/etc/motd", "new").status == 409);
        CHECK(world.guest_files() == before);
        return;
    }
    check_untouched(world, before);
}

TEST_CASE("a client that is cut off in the middle of an upload leaves what was there") {
    GuestScene world;
    const auto watcher = world.watch();
    world.guest_files()["/etc/motd"] = "old";
    const auto before = world.guest_files();
    world.hypervisor->answer_late("write_guest_file", 5s);
    auto request = GuestScene::request(net::Method::put, "/etc/motd");
    request.body_stream = GuestScene::body_of(std::vector<std::string>(5, some_bytes(virt::max_guest_piece)));
    boost::asio::cancellation_signal cut;
    bool ended = false;
    boost::asio::co_spawn(world.loop, world.app->api()(std::move(request)),
                          boost::asio::bind_cancellation_slot(
                              cut.slot(), [&](const std::exception_ptr&, const net::Response&) { ended = true; }));
    world.pass(7s);
    CHECK(world.hypervisor->open_guest_files(world.id) == 1);
    cut.emit(boost::asio::cancellation_type::terminal);
    world.pass(30s);
    CHECK(ended);
    CHECK(last_result(*watcher) == "cancelled");
    check_untouched(world, before);
}

TEST_CASE("only files for guests have their bodies handed on as they come") {
    using agent::api::streams_body;
    CHECK(streams_body(net::Method::put, "/v1/vms/web/files"));
    CHECK_FALSE(streams_body(net::Method::get, "/v1/vms/web/files"));
    CHECK_FALSE(streams_body(net::Method::put, "/v1/vms//files"));
    CHECK_FALSE(streams_body(net::Method::put, "/v1/vms/files"));
    CHECK_FALSE(streams_body(net::Method::put, "/v1/vms/a/b/files"));
    CHECK_FALSE(streams_body(net::Method::put, "/v1/vms/web/filesx"));
}
