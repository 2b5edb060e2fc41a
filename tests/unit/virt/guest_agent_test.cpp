#include "virt/guest_agent.hpp"

#include <catch2/catch.hpp>

using namespace ghost::virt;

TEST_CASE("a program for the guest agent") {
    CHECK(guest_exec_command({"/bin/sh", "-c", "say \"it\""}) ==
          R"({"execute":"guest-exec","arguments":{"path":"/bin/sh","capture-output":true,"arg":["-c","say \"it\""]}})");
    CHECK(read_guest_exec(R"({"return":{"pid":1234}})") == 1234);
    for (const auto* text : {"", "{}", "[]", R"({"return":{"pid":"1"}})", R"({"return":[]})"})
        CHECK_FALSE(read_guest_exec(text));
}

TEST_CASE("the end of a program in the guest, with what it printed") {
    CHECK_FALSE(read_guest_exec_status(R"({"return":{"exited":false}})"));
    const auto ended =
        read_guest_exec_status(R"({"return":{"exitcode":1,"out-data":"c3RhdHVzOiBkb25lCg==","exited":true}})");
    REQUIRE(ended);
    CHECK(ended->how == GuestRun::How::exited);
    CHECK(ended->exit_code == 1);
    CHECK(ended->output == "status: done\n");
    CHECK(read_guest_exec_status(R"({"return":{"signal":9,"exited":true}})")->exit_code == 128);
    CHECK(read_guest_exec_status(R"({"return":{"exitcode":-7,"out-data":"YQ!!","exited":true}})")->output == "a");
    const auto long_one = R"({"return":{"exited":true,"exitcode":0,"out-data":")" + std::string(1 << 20, 'A') + "\"}}";
    CHECK(read_guest_exec_status(long_one)->output.size() == 48 * 1024);
}

TEST_CASE("an answer that can't be read is the guest's failure and not an end") {
    for (const auto* text : {"", "nonsense", R"({"return":7})", R"({"return":{"exited":"yes"}})", R"({"error":{}})"})
        CHECK(read_guest_exec_status(text)->how == GuestRun::How::failed);
    const std::string deep = R"({"return":)" + std::string(10000, '[');
    CHECK(read_guest_exec_status(deep)->how == GuestRun::How::failed);
}

TEST_CASE("what the agent was told to refuse stands in its list") {
    CHECK(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":true,"name":"guest-exec"}]}})"));
    CHECK_FALSE(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":false,"name":"guest-exec"}]}})"));
    CHECK_FALSE(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":true,"name":"guest-ping"},5]}})"));
    CHECK(allows_guest_exec("{}"));
}
