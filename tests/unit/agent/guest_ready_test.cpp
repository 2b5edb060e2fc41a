#include "agent/vm/guest_ready.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;
using How = virt::GuestRun::How;

namespace {

virt::GuestRun exited(int code, std::string output) {
    return {.how = How::exited, .exit_code = code, .output = std::move(output)};
}

GuestReadiness told(int code, std::string output, CloudInitDialect dialect = CloudInitDialect::json) {
    const auto readiness = guest_readiness(exited(code, std::move(output)), dialect);
    REQUIRE(readiness);
    return *readiness;
}

struct Case {
    const char* what;
    int code;
    const char* output;
    Verdict ready;
    const char* reason;
    const char* message;
};

}  // namespace

TEST_CASE("what cloud-init says in JSON") {
    const auto each = GENERATE(values<Case>({
        {"22.4: nothing began", 0,
         R"j({"boot_status_code": "enabled-by-generator", "datasource": "", "detail":
             "Cloud-init enabled by systemd cloud-init-generator", "errors": [], "last_update": "", "status": "not run",
             "_schema_version": "1", "schemas": {"1": {"status": "not run", "errors": []}}})j",
         Verdict::no, "cloud_init_running", "Cloud-init enabled by systemd cloud-init-generator"},
        {"24: nothing began", 0, R"j({"status": "not started", "extended_status": "not started", "detail": ""})j",
         Verdict::no, "cloud_init_running", ""},
        {"a stage runs", 0, R"j({"status": "running", "detail": "Running in stage: modules-config", "errors": []})j",
         Verdict::no, "cloud_init_running", "Running in stage: modules-config"},
        {"done", 0,
         R"j({"status": "done", "detail": "DataSourceNoCloud [seed=/dev/sr0][dsmode=net]", "errors": [],
             "datasource": "nocloud"})j",
         Verdict::yes, "cloud_init_done", ""},
        {"off", 0, R"j({"status": "disabled", "detail": "Cloud-init disabled by /etc/cloud/cloud-init.disabled"})j",
         Verdict::yes, "cloud_init_disabled", "Cloud-init disabled by /etc/cloud/cloud-init.disabled"},
        {"22.4: a module failed", 1,
         R"j({"_schema_version": "1", "boot_status_code": "enabled-by-generator", "datasource": "nocloud",
             "detail": "('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))",
             "errors": ["('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))"],
             "schemas": {"1": {"errors": ["('scripts_user', RuntimeError('Runparts: 1 failures'))"]}},
             "status": "error"})j",
         Verdict::no, "cloud_init_error",
         "the module scripts_user failed: Runparts: 1 failures (runcmd) in 1 attempted commands"},
        {"24: of a stage, while others run on", 1,
         R"j({"status": "error", "extended_status": "error - running", "detail": "x", "recoverable_errors": {},
             "modules-config": {"errors": ["('runcmd', ValueError(\"it's broken\"))"], "finished": 1.5},
             "init": {"errors": [], "recoverable_errors": {}}})j",
         Verdict::no, "cloud_init_error", "the module runcmd failed: it's broken"},
        {"two modules and a fault of none", 1,
         R"j({"status": "error", "errors": ["('locale', ProcessExecutionError('Unexpected error.\\nExit code: 255'))",
             "('bootcmd', OSError())", "No instance datasource found"]})j",
         Verdict::no, "cloud_init_error",
         "the module locale failed: Unexpected error. Exit code: 255; the module bootcmd failed: OSError(); "
         "cloud-init failed: No instance datasource found"},
        {"an error without a word", 1, R"j({"status": "error", "errors": []})j", Verdict::no, "cloud_init_error",
         "cloud-init failed"},
        {"24: degraded", 2,
         R"j({"status": "done", "extended_status": "degraded done", "errors": [],
             "recoverable_errors": {"WARNING": ["Failed at merging in cloud config part from part-001"]}})j",
         Verdict::yes, "cloud_init_degraded", "Failed at merging in cloud config part from part-001"},
        {"24: degraded and not done", 2, R"j({"status": "running", "extended_status": "degraded running"})j",
         Verdict::no, "cloud_init_running", ""},
        {"a warning before the document", 0, "WARNING: no permission\n{\"status\": \"done\"}", Verdict::yes,
         "cloud_init_done", ""},
        {"a word of later versions", 0, R"j({"status": "pondering"})j", Verdict::unknown, "cloud_init_unreadable",
         "cloud-init's status can't be read"},
        {"a crash of its own", 1, "Traceback (most recent call last):\n", Verdict::unknown, "cloud_init_unreadable",
         "cloud-init status ended with 1"},
        {"nothing", 0, "", Verdict::unknown, "cloud_init_unreadable", "cloud-init's status can't be read"},
        {"of other types", 0,
         R"j({"status": ["done"], "errors": {}, "recoverable_errors": [1], "init": {"errors": 5}})j", Verdict::unknown,
         "cloud_init_unreadable", "cloud-init's status can't be read"},
        {"no such program", 127, "", Verdict::yes, "no_cloud_init", ""},
    }));
    CAPTURE(each.what);
    const auto readiness = told(each.code, each.output);
    CHECK(readiness.ready == each.ready);
    CHECK(readiness.reason == each.reason);
    CHECK(readiness.message == each.message);
}

TEST_CASE("what cloud-init says in lines, before it spoke JSON") {
    const auto each = GENERATE(values<Case>({
        {"20.4: done", 0, "status: done\ntime: Thu, 02 Jan 2026 03:04:05 +0000\ndetail:\nDataSourceNoCloud [seed=x]\n",
         Verdict::yes, "cloud_init_done", ""},
        {"20.4: runs", 0, "status: running\ntime: Thu, 02 Jan 2026 03:04:05 +0000\ndetail:\nRunning in stage: init\n",
         Verdict::no, "cloud_init_running", "Running in stage: init"},
        {"22.4: failed", 1,
         "status: error\nboot_status_code: enabled-by-generator\nlast_update: Tue, 24 Nov 2026 19:56:35 +0000\n"
         "detail:\n('scripts-user', RuntimeError('Runparts: 1 failures in 1 attempted commands'))\n",
         Verdict::no, "cloud_init_error",
         "the module scripts-user failed: Runparts: 1 failures in 1 attempted commands"},
        {"24: failed", 1,
         "status: error\nextended_status: error - done\nboot_status_code: enabled-by-generator\n"
         "detail: DataSourceNoCloud [seed=/dev/sr0]\nerrors:\n\t- ('runcmd', ValueError('no'))\n"
         "recoverable_errors: {}\n",
         Verdict::no, "cloud_init_error", "the module runcmd failed: no"},
        {"24: degraded", 2,
         "status: done\nextended_status: degraded done\ndetail: DataSourceNoCloud\nerrors: []\nrecoverable_errors:\n"
         "WARNING:\n\t- Used fallback datasource\n",
         Verdict::yes, "cloud_init_degraded", "Used fallback datasource"},
        {"nothing", 1, "", Verdict::unknown, "cloud_init_unreadable", "cloud-init status ended with 1"},
    }));
    CAPTURE(each.what);
    const auto readiness = told(each.code, each.output, CloudInitDialect::lines);
    CHECK(readiness.ready == each.ready);
    CHECK(readiness.reason == each.reason);
    CHECK(readiness.message == each.message);
}

TEST_CASE("a cloud-init that knows no JSON is asked for lines") {
    CHECK_FALSE(guest_readiness(exited(2, "\n"), CloudInitDialect::json));
    CHECK(guest_readiness(exited(2, ""), CloudInitDialect::lines)->reason == "cloud_init_unreadable");
    CHECK(cloud_init_question(CloudInitDialect::json).back().contains("--format json"));
    CHECK(cloud_init_question(CloudInitDialect::lines).back().contains("--long"));
}

TEST_CASE("a guest that runs no program is not known to be ready") {
    CHECK(guest_readiness({}, CloudInitDialect::json) == GuestReadiness{});
    CHECK(GuestReadiness{}.ready == Verdict::unknown);
    CHECK(GuestReadiness{}.reason == "no_guest_agent");
    const auto forbidden = guest_readiness({.how = How::not_allowed}, CloudInitDialect::json);
    CHECK(forbidden->ready == Verdict::unknown);
    CHECK(forbidden->reason == "guest_exec_not_allowed");
    const auto failed = guest_readiness({.how = How::failed, .output = "no\x1b[31m memory\n"}, CloudInitDialect::json);
    CHECK(failed->ready == Verdict::unknown);
    CHECK(failed->reason == "guest_exec_failed");
    CHECK(failed->message == "no [31m memory");
}

TEST_CASE("what shows of a guest's words is short, plain text") {
    std::string many = R"j({"status": "error", "errors": [)j";
    for (int n = 0; n < 50; ++n)
        many += "\"('m" + std::to_string(n) + "', E('\xc3\xa4" + std::string(5000, 'x') + "'))\",";
    many.back() = ']';
    const auto readiness = told(1, many + "}");
    CHECK(readiness.message.size() < 1100);
    CHECK(readiness.message.ends_with("; and 47 more"));
    std::string wide = "status: disabled\ndetail: ";
    for (int n = 0; n < 400; ++n) wide += "\xc3\xa4";
    CHECK(told(0, wide, CloudInitDialect::lines).message.size() == 303);
    CHECK(told(0, "status: disabled\ndetail: a\xff\x01z\n", CloudInitDialect::lines).message == "a z");
}
