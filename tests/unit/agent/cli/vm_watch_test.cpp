// ghostctl vm list --watch, against an agent whose lists and streams a test writes.
#include "agent/cli/vm_watch.hpp"

#include "tests/unit/agent/cli/streaming_agent.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <fmt/ranges.h>

#include <sstream>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

namespace {

std::string vm(std::string_view id, std::string_view name, std::string_view power, std::string_view more = "") {
    return fmt::format(
        R"({{"id":"{}","name":"{}","managed":true,"spec":{{"vcpus":1}},"status":{{"phase":"ready","power":"{}"}}{}}})",
        id, name, power, more);
}
std::string list(std::initializer_list<std::string> vms) {
    return fmt::format(R"({{"items":[{}],"next_page_token":null}})", fmt::join(vms, ","));
}
std::string row(std::string_view name, std::string_view state, std::string_view vcpus = "1") {
    return fmt::format("{}  {:<7}  {:<5}  -       -     -      -          -      -\n", name, state, vcpus);
}
const std::string headings = "NAME  STATE    VCPUS  MEMORY  DISK  IMAGE  ADDRESSES  OWNER  AGE\n";

// A watch of two running VMs, during which `events` come.
struct Watched {
    Bench bench;
    StreamingAgent agent{bench};

    explicit Watched(StreamingAgent::Pieces events) {
        agent.lists = {list({vm("1", "aaaa", "running"), vm("2", "bbbb", "running")})};
        agent.streams = {{std::move(events)}};
    }
    std::string shown(const VmFilter& filter = {}, Format format = Format::table) {
        CHECK(bench.run(with(WatchVms{filter}, format), agent.client) == ExitCode::done);
        return bench.console.written;
    }
};

json::object parsed(const std::string& text) { return json::parse(text).get_object(); }

}  // namespace

TEST_CASE("a watched list shows the table, and then the rows that change") {
    Watched watch{{sse(21, "vm.power", vm("2", "bbbb", "off")), sse(22, "vm.created", vm("3", "cccc", "off")),
                   sse(23, "vm.deleted", R"({"id":"1","name":"aaaa"})"), sse(24, "operation.updated", "{}")}};
    CHECK(watch.shown() == headings + row("aaaa", "running") + row("bbbb", "running") +
                               fmt::format("bbbb  {:<7}  1      -       -     -      -          -      -\n", "off") +
                               row("cccc", "off") + row("aaaa", "deleted", "-"));
    CHECK(watch.agent.listed == std::vector<std::string>{"/v1/vms?limit=1000"});
    CHECK(watch.agent.places == std::vector<std::string>{"20", "24"});
    CHECK_THAT(watch.bench.console.complained, Catch::StartsWith("ghostctl: the stream of events broke"));
}

TEST_CASE("a VM whose row looks the same isn't shown again, but is to scripts") {
    const StreamingAgent::Pieces events{sse(21, "vm.updated", vm("1", "aaaa", "running", R"(,"generation":4)"))};
    CHECK(Watched{events}.shown() == headings + row("aaaa", "running") + row("bbbb", "running"));
    // An incident is no state of its VM.
    const StreamingAgent::Pieces incident{sse(21, "vm.guest_access", R"({"vm":"1","name":"aaaa","action":"exec"})")};
    CHECK(Watched{incident}.shown() == headings + row("aaaa", "running") + row("bbbb", "running"));
    std::istringstream lines{Watched{events}.shown({}, Format::json)};
    std::vector<json::object> vms;
    for (std::string text; std::getline(lines, text);) vms.push_back(parsed(text));
    REQUIRE(vms.size() == 3);
    CHECK(vms[1] == parsed(vm("2", "bbbb", "running")));
    CHECK(vms[2].at("generation") == 4);
}

TEST_CASE("scripts see that a VM is gone") {
    Watched watch{{sse(21, "vm.deleted", R"({"id":"1","name":"aaaa"})")}};
    const auto text = watch.shown({}, Format::json);
    CHECK_THAT(text, Catch::EndsWith("}\n"
                                     R"({"id":"1","name":"aaaa","status":{"phase":"deleted"}})"
                                     "\n"));
    CHECK(Watched{{sse(21, "vm.power", vm("2", "bbbb", "off"))}}.shown({}, Format::name) == "aaaa\nbbbb\nbbbb\n");
}

TEST_CASE("a filter also holds for what comes later") {
    Watched watch{{sse(21, "vm.power", vm("1", "aaaa", "off")), sse(22, "vm.updated", vm("1", "aaaa", "off")),
                   sse(23, "vm.created", vm("3", "cccc", "off")), sse(24, "vm.power", vm("3", "cccc", "running")),
                   sse(25, "vm.deleted", R"({"id":"9","name":"none"})")}};
    CHECK(watch.shown({.power = "running"}) ==
          headings + row("aaaa", "running") + row("bbbb", "running") + row("aaaa", "off") + row("cccc", "running"));
    CHECK(watch.agent.listed == std::vector<std::string>{"/v1/vms?power=running&limit=1000"});
}

TEST_CASE("every filter is applied to events") {
    const auto web = parsed(vm("1", "web", "running", R"(,"owner":"ada","labels":{"tier":"web","n":1})"));
    CHECK(VmFilter{}.accepts(web));
    CHECK(VmFilter{{{"tier", "web"}}, "running", "ada", "web", true}.accepts(web));
    CHECK_FALSE(VmFilter{.labels = {{"tier", "web"}, {"x", ""}}}.accepts(web));
    CHECK_FALSE(VmFilter{.labels = {{"n", "1"}}}.accepts(web));
    CHECK_FALSE(VmFilter{.power = "off"}.accepts(web));
    CHECK_FALSE(VmFilter{.owner = "bob"}.accepts(web));
    CHECK_FALSE(VmFilter{.name = "we"}.accepts(web));
    CHECK_FALSE(VmFilter{.managed = false}.accepts(web));
    CHECK_FALSE(VmFilter{.managed = false}.accepts({}));
}

TEST_CASE("a list that was empty has its headings with the first VM") {
    Watched watch{{sse(21, "vm.created", vm("1", "aaaa", "off")), sse(22, "vm.power", vm("1", "aaaa", "running"))}};
    watch.agent.lists = {list({})};
    const auto text = watch.shown();
    CHECK_THAT(text, Catch::StartsWith("No VMs.\nNAME"));
    CHECK(text.find("NAME") == text.rfind("NAME"));
    CHECK_THAT(text, Catch::Contains("aaaa  running"));
}

TEST_CASE("after missed events the list is read again, and what differs is shown") {
    Watched watch{{}};
    watch.agent.lists.push_back(list({vm("2", "bbbb", "off"), vm("3", "cccc", "off")}));
    watch.agent.streams = {StreamingAgent::expired(), {{sse(31, "vm.power", vm("3", "cccc", "running"))}}};
    const auto text = watch.shown();
    CHECK(text == headings + row("aaaa", "running") + row("bbbb", "running") + row("bbbb", "off") + row("cccc", "off") +
                      row("aaaa", "deleted", "-") + row("cccc", "running"));
    CHECK(watch.agent.listed.size() == 2);
    CHECK(watch.agent.places == std::vector<std::string>{"20", "20", "31"});
}

TEST_CASE("on a terminal the table is drawn anew") {
    Watched watch{{": hello\n\n", sse(21, "vm.power", vm("2", "bbbb", "off"))}};
    watch.bench.console.terminal = Screen{200, 24};
    const auto text = watch.shown();
    const auto last = text.substr(text.rfind("\x1b[H"));
    CHECK_THAT(last, Catch::StartsWith("\x1b[H\x1b[KNAME") && Catch::Contains("\n\x1b[Kbbbb  off") &&
                         Catch::EndsWith("\x1b[J"));
    CHECK_THAT(text, Catch::Contains("bbbb  running") && !Catch::Contains("No VMs"));
}

TEST_CASE("a table is cut to its screen") {
    const std::string table = "NAME  X\na  12345\nb  12345\nc  12345\n";
    CHECK(on_screen(table, {80, 5}) == "\x1b[H\x1b[KNAME  X\n\x1b[Ka  12345\n\x1b[Kb  12345\n\x1b[Kc  12345\n\x1b[J");
    CHECK(on_screen(table, {6, 4}) == "\x1b[H\x1b[KNAME  \n\x1b[Ka  123\n\x1b[K... and 2 more\n\x1b[J");
    CHECK_NOTHROW(on_screen("", {1, 1}));
}
