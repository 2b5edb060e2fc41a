#include "agent/cli/event_lines.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost::cli;
namespace json = boost::json;

namespace {

json::object event(std::string_view type, std::string_view subject, std::string_view data) {
    return {{"id", 7},
            {"type", type},
            {"time", "2026-01-02T03:04:05.678Z"},
            {"subject", subject},
            {"data", json::parse(data)}};
}

std::string summary(std::string_view type, std::string_view data) { return summary_of(event(type, "/v1/x/1", data)); }

constexpr std::string_view web =
    R"({"id":"0198","name":"web","status":{"phase":"ready","power":"running","addresses":["10.0.0.2"]}})";
constexpr std::string_view creation =
    R"({"id":"op-1","kind":"vm.create","target":{"type":"vm","id":"0198","name":"web"},"state":"running",
        "stalled":true,"progress":{"phase":"start"}})";

}  // namespace

TEST_CASE("an event is a line with its time, type and what happened") {
    CHECK(event_line(event("vm.power", "/v1/vms/0198", web)) ==
          "2026-01-02T03:04:05.678Z  vm.power           vm web is running at 10.0.0.2\n");
    CHECK(event_line(event("operation.updated", "/v1/operations/op-1", creation)) ==
          "2026-01-02T03:04:05.678Z  operation.updated  operation vm.create of web: start (stalled)\n");
    CHECK(event_line(event("x.\x1b", "/v1/x", "{}")) ==
          "2026-01-02T03:04:05.678Z  x.\\x1b             /v1/x changed\n");
}

TEST_CASE("each kind of event has its words") {
    CHECK(summary("vm.created", R"({"id":"1","status":{"phase":"provisioning"}})") == "vm 1 is new: provisioning");
    CHECK(summary("vm.updated", web) == "vm web changed: running at 10.0.0.2");
    CHECK(summary("vm.deleted", R"({"id":"0198","name":"web"})") == "vm web was deleted");
    CHECK(summary("vm.guest_access", R"({"vm":"0198","name":"web","action":"exec","command":"ls -l","by":"socket:uid:0",
                                        "result":"succeeded","exit_code":2})") ==
          "socket:uid:0 ran ls -l in vm web: exit code 2");
    CHECK(summary("vm.guest_access", R"({"vm":"0198","name":"web","action":"file_read","path":"/etc/motd","by":"alice",
                                        "result":"not_found","bytes":0})") ==
          "alice read /etc/motd in vm web: not_found");
    CHECK(summary("vm.guest_access", R"({"name":"web","action":"file_write","path":"/x","by":"bob",
                                        "result":"succeeded"})") == "bob wrote /x in vm web: succeeded");
    CHECK(summary("operation.updated", R"({"kind":"image.add","target":{"name":"d"},"state":"running",
                                           "progress":{"phase":"copy","percent":50}})") ==
          "operation image.add of d: copy 50%");
    CHECK(summary("operation.updated", R"({"kind":"vm.start","target":{"id":"u"},"state":"pending"})") ==
          "operation vm.start of u: pending");
    CHECK(summary("operation.updated", R"({"kind":"vm.start","target":{"name":"w"},"state":"failed",
                                           "error":{"detail":"no room"}})") ==
          "operation vm.start of w: failed: no room");
    CHECK(summary("operation.updated", R"({"kind":"vm.start","target":{"name":"w"},"state":"succeeded",
                                           "error":null,"progress":{"percent":100}})") ==
          "operation vm.start of w: succeeded");
    CHECK(summary("operation.updated", R"({"kind":"vm.delete","target":{"name":"w"},"state":"running",
                                           "error":{"detail":"it is busy"},"progress":{"phase":"retry"}})") ==
          "operation vm.delete of w: waiting to try again: it is busy");
    CHECK(summary("image.updated", R"({"name":"debian-12","state":"available"})") == "image debian-12 is available");
    CHECK(summary("agent.updated", R"({"name":"node-1","hypervisor":{"connected":true},"core":{"state":"online"}})") ==
          "agent node-1: hypervisor connected, Ghost Core online");
    CHECK(summary("agent.updated", R"({"name":"node-1","hypervisor":{"connected":false,"reason":"refused"}})") ==
          "agent node-1: hypervisor not connected (refused)");
    CHECK(summary("agent.updated", R"({"name":"n","hypervisor":{"connected":true},"drain":{"reason":null}})") ==
          "agent n: hypervisor connected, drained");
    CHECK(summary("agent.updated", R"({"name":"n","hypervisor":{"connected":true},"drain":{"reason":"update"}})") ==
          "agent n: hypervisor connected, drained (update)");
}

TEST_CASE("a line stands whatever an agent sends") {
    for (const auto type : event_types)
        for (const auto* data : {"{}", "5", R"({"status":7,"target":[],"error":1,"progress":"x","stalled":true})"})
            CHECK_NOTHROW(event_line(event(type, "/v1/x/1", data)));
    CHECK_NOTHROW(event_line({}));
}

TEST_CASE("events are chosen by type and by what they are about") {
    const auto power = event("vm.power", "/v1/vms/0198", web);
    const auto operation = event("operation.updated", "/v1/operations/op-1", creation);
    CHECK(EventFilter{}.accepts(power));
    CHECK(EventFilter{{"vm.power", "vm.deleted"}, {}}.accepts(power));
    CHECK_FALSE(EventFilter{{"vm.deleted"}, {}}.accepts(power));
    for (const auto* subject : {"web", "0198"}) {
        CHECK(EventFilter{{}, subject}.accepts(power));
        CHECK(EventFilter{{}, subject}.accepts(operation));
    }
    CHECK(EventFilter{{}, "/v1/vms/0198"}.accepts(power));
    CHECK(EventFilter{{}, "op-1"}.accepts(operation));
    CHECK_FALSE(EventFilter{{}, "op-1"}.accepts(power));
    CHECK_FALSE(EventFilter{{}, "we"}.accepts(power));
    CHECK_FALSE(EventFilter{{"vm.power"}, "web"}.accepts(operation));
}
