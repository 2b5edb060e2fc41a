#include "virt/guest_agent.hpp"

#include "base/base64.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <string>

using ghost::base::to_base64;
using namespace ghost::virt;

TEST_CASE("a program for the guest agent") {
    CHECK(guest_exec_command({.argv = {"/bin/sh", "-c", "say \"it\""}}) ==
          R"({"execute":"guest-exec","arguments":{"path":"/bin/sh","capture-output":true,"arg":["-c","say \"it\""]}})");
    CHECK(guest_exec_command({.argv = {"cat"}, .environment = {"A=b", "C=\"d"}, .input = std::string{"\0\xff", 2}}) ==
          R"({"execute":"guest-exec","arguments":{"path":"cat","capture-output":true,"arg":[],)"
          R"("env":["A=b","C=\"d"],"input-data":"AP8="}})");
    CHECK(read_guest_exec(R"({"return":{"pid":1234}})") == 1234);
    for (const auto* text : {"", "{}", "[]", R"({"return":{"pid":"1"}})", R"({"return":[]})"})
        CHECK_FALSE(read_guest_exec(text));
}

TEST_CASE("the end of a program in the guest, with what it printed") {
    const auto seen = [](std::string_view answer) { return read_guest_exec_status(answer, 48 * 1024); };
    CHECK_FALSE(seen(R"({"return":{"exited":false}})"));
    const auto ended =
        seen(R"({"return":{"exitcode":1,"out-data":"c3RhdHVzOiBkb25lCg==","err-data":"bm8=","exited":true}})");
    REQUIRE(ended);
    CHECK(ended->how == GuestRun::How::exited);
    CHECK(ended->exit_code == 1);
    CHECK(ended->output == "status: done\n");
    CHECK(ended->errors == "no");
    CHECK_FALSE(ended->truncated);
    CHECK(seen(R"({"return":{"signal":9,"exited":true}})")->exit_code == 128);
    CHECK(seen(R"({"return":{"exitcode":-7,"out-data":"YQ!!","exited":true}})")->output == "a");
    CHECK(seen(R"({"return":{"exitcode":0,"out-data":7,"err-data":{},"exited":true}})")->output.empty());
}

TEST_CASE("no more is kept of what a program printed than was asked for, and what is missing shows") {
    const auto seen = [](std::string_view rest) {
        return *read_guest_exec_status(fmt::format(R"({{"return":{{"exited":true,"exitcode":0,{}}}}})", rest), 6);
    };
    const auto fits = seen(R"("out-data":"YWJjZGVm")");
    CHECK(fits.output == "abcdef");
    CHECK_FALSE(fits.truncated);
    const auto more = seen(R"("out-data":"YWJjZGVmZw==")");
    CHECK(more.output == "abcdef");
    CHECK(more.truncated);
    CHECK(seen(R"("err-data":"YWJjZGVmZw==")").truncated);
    CHECK(seen(R"("out-data":"YQ==","out-truncated":true)").truncated);
    CHECK(seen(R"("err-data":"YQ==","err-truncated":true)").truncated);
    CHECK_FALSE(seen(R"("out-data":"YQ==","out-truncated":"true")").truncated);
    const auto endless = seen("\"out-data\":\"" + std::string(1 << 20, 'A') + "\"");
    CHECK(endless.output.size() == 6);
    CHECK(endless.truncated);
}

TEST_CASE("a command that is too long for an agent is refused") {
    GuestCommand command{.argv = {"cat"}, .input = std::string(max_guest_input, 'x')};
    CHECK(check_guest_command(command));
    command.input += 'x';
    CHECK(check_guest_command(command).error().code == ghost::base::Errc::body_too_large);
    command.input.clear();
    command.argv.push_back(std::string(100'000, 'x'));
    CHECK(check_guest_command(command));
    command.argv.back().assign(30'000, '\x01');  // six characters each
    CHECK(check_guest_command(command).error().code == ghost::base::Errc::body_too_large);
}

TEST_CASE("a guest's file is opened, read and written in the agent's words") {
    CHECK(guest_file_open_command("/tmp/a \"b\"", GuestFileMode::read) ==
          R"({"execute":"guest-file-open","arguments":{"path":"/tmp/a \"b\"","mode":"rb"}})");
    CHECK(guest_file_open_command("/tmp/a", GuestFileMode::write) ==
          R"({"execute":"guest-file-open","arguments":{"path":"/tmp/a","mode":"wb"}})");
    CHECK(guest_file_write_command(1001, "abc\n") ==
          R"({"execute":"guest-file-write","arguments":{"handle":1001,"buf-b64":"YWJjCg=="}})");
    CHECK(read_guest_file_open(R"({"return":1001})") == 1001);
    CHECK(read_guest_file_write(R"({"return":{"count":4,"eof":false}})") == 4);
    const auto piece = read_guest_file_read(R"({"return":{"count":4,"buf-b64":"YWJjCg==","eof":false}})");
    REQUIRE(piece);
    CHECK(piece->bytes == "abc\n");
    CHECK_FALSE(piece->end);
    CHECK(read_guest_file_read(R"({"return":{"count":0,"buf-b64":"","eof":true}})")->end);
    const std::string large(max_guest_piece, 'x');
    const auto answer =
        fmt::format(R"({{"return":{{"count":{},"buf-b64":"{}","eof":true}}}})", large.size(), to_base64(large));
    CHECK(read_guest_file_read(answer)->bytes == large);
}

TEST_CASE("a piece of a guest's file that isn't whole, or isn't one, is none") {
    for (const auto* text : {
             R"({"return":{"count":4,"buf-b64":"YWJj","eof":false}})",         // a byte short
             R"({"return":{"count":3,"buf-b64":"YW!jCg==","eof":false}})",     // broken
             R"({"return":{"count":-1,"buf-b64":"","eof":true}})",             //
             R"({"return":{"count":0,"buf-b64":"","eof":false}})",             // for ever
             R"({"return":{"count":"3","buf-b64":"YWJj"}})",                   //
             R"({"return":{"count":3,"buf-b64":["YWJj"]}})",                   //
             R"({"return":{"count":18446744073709551615,"buf-b64":"YQ=="}})",  //
             R"({"return":[]})",
             R"({"error":{}})",
             "",
         }) {
        INFO(text);
        CHECK_FALSE(read_guest_file_read(text));
    }
    const std::string large(max_guest_piece + 1, 'x');
    CHECK_FALSE(read_guest_file_read(
        fmt::format(R"({{"return":{{"count":{},"buf-b64":"{}","eof":true}}}})", large.size(), to_base64(large))));
    for (const auto* text : {"", "[]", R"({"return":{}})", R"({"return":"1"})", R"({"return":1.5})"}) {
        CHECK_FALSE(read_guest_file_open(text));
        CHECK_FALSE(read_guest_file_write(text));
    }
}

TEST_CASE("an answer that can't be read is the guest's failure and not an end") {
    for (const auto* text : {"", "nonsense", R"({"return":7})", R"({"return":{"exited":"yes"}})", R"({"error":{}})"})
        CHECK(read_guest_exec_status(text, 100)->how == GuestRun::How::failed);
    const std::string deep = R"({"return":)" + std::string(10000, '[');
    CHECK(read_guest_exec_status(deep, 100)->how == GuestRun::How::failed);
}

TEST_CASE("what the agent was told to refuse stands in its list") {
    CHECK(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":true,"name":"guest-exec"}]}})"));
    CHECK_FALSE(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":false,"name":"guest-exec"}]}})"));
    CHECK_FALSE(allows_guest_exec(R"({"return":{"supported_commands":[{"enabled":true,"name":"guest-ping"},5]}})"));
    CHECK(allows_guest_exec("{}"));
}
