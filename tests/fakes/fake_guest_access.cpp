// Ways into the guests: console, display, and what their agents do.
#include "tests/fakes/fake_hypervisor.hpp"
#include "virt/guest_agent.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace ghost::fakes {
namespace {

using base::Errc;
using base::Result;
using virt::DomainInfo;
using virt::GuestRun;
using virt::Power;

std::unexpected<base::Error> wrong_state(const DomainInfo& domain) {
    return base::fail(Errc::state_conflict, "domain is " + std::string{virt::name_of(domain.power)});
}
std::unexpected<base::Error> no_handle(std::int64_t handle) {
    return base::fail(Errc::state_conflict,
                      fmt::format("the guest agent says: handle '{}' has not been found", handle));
}

void cut(std::string& text, std::size_t longest, bool& truncated) {
    if (text.size() <= longest) return;
    text.resize(longest);
    truncated = true;
}

}  // namespace

// ---- What tests say

void FakeHypervisor::set_console(std::string uuid, virt::ConsoleDevice device) {
    consoles_.insert_or_assign(std::move(uuid), std::move(device));
}

void FakeHypervisor::set_display(std::string uuid, std::function<base::Descriptor()> connect) {
    displays_.insert_or_assign(std::move(uuid), std::move(connect));
}

void FakeHypervisor::set_screenshot(std::string uuid, virt::Picture picture) {
    screenshots_.insert_or_assign(std::move(uuid), std::move(picture));
}

void FakeHypervisor::set_guest_run(std::string uuid, GuestRun run) {
    guest_runs_.insert_or_assign(std::move(uuid), std::move(run));
}

std::vector<base::Wall> FakeHypervisor::guest_times(const std::string& uuid) const {
    const auto it = guest_times_.find(uuid);
    return it == guest_times_.end() ? std::vector<base::Wall>{} : it->second;
}

std::size_t FakeHypervisor::open_guest_files(const std::string& uuid) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(guest_handles_, [&uuid](const auto& open) { return open.second.uuid == uuid; }));
}

// ---- Console and display

Result<const DomainInfo*> FakeHypervisor::live(const std::string& uuid) const {
    const auto it = domains_.find(uuid);
    if (it == domains_.end()) return base::fail(Errc::not_found, "no domain with uuid " + uuid);
    if (it->second.live_vcpus == 0) return wrong_state(it->second);
    return &it->second;
}

FakeHypervisor::Task<const DomainInfo*> FakeHypervisor::enter_live(const char* call, const std::string& uuid) {
    if (const auto entered = co_await enter_read(call, uuid); !entered) co_return base::fail(entered.error());
    co_return live(uuid);
}

FakeHypervisor::Task<virt::ConsoleDevice> FakeHypervisor::console(std::string uuid) {
    if (const auto runs = co_await enter_live("console", uuid); !runs) co_return base::fail(runs.error());
    const auto known = consoles_.find(uuid);
    if (known == consoles_.end())
        co_return base::fail(Errc::state_conflict, "the domain has no serial console that can be reached");
    auto device = known->second;
    co_await leave_read("console");
    co_return device;
}

FakeHypervisor::Task<base::Descriptor> FakeHypervisor::open_display(std::string uuid) {
    if (const auto runs = co_await enter_live("open_display", uuid); !runs) co_return base::fail(runs.error());
    const auto known = displays_.find(uuid);
    if (known == displays_.end()) co_return base::fail(Errc::state_conflict, "the domain has no VNC display");
    auto connection = known->second();
    if (!connection) co_return base::fail(Errc::hypervisor_error, "cannot connect to the domain's display");
    co_await leave_read("open_display");
    co_return connection;
}

FakeHypervisor::Task<virt::Picture> FakeHypervisor::screenshot(std::string uuid) {
    if (const auto runs = co_await enter_live("screenshot", uuid); !runs) co_return base::fail(runs.error());
    const auto known = screenshots_.find(uuid);
    if (known == screenshots_.end()) co_return base::fail(Errc::state_conflict, "the domain has no display");
    auto picture = known->second;
    co_await leave_read("screenshot");
    co_return picture;
}

// ---- The guest agent

bool FakeHypervisor::has_agent(const std::string& uuid) const {
    const auto known = guest_runs_.find(uuid);
    return known == guest_runs_.end() ? static_cast<bool>(on_guest_run) : known->second.how != GuestRun::How::no_agent;
}

// Success: the guest runs, and an agent answers in it.
Result<void> FakeHypervisor::agent_answers(const std::string& uuid) const {
    const auto it = domains_.find(uuid);
    if (it == domains_.end()) return base::fail(Errc::not_found, "no domain with uuid " + uuid);
    if (it->second.power != Power::running) return wrong_state(it->second);
    if (!has_agent(uuid)) return base::fail(Errc::state_conflict, "no guest agent answers");
    return {};
}

FakeHypervisor::Task<GuestRun> FakeHypervisor::run_in_guest(std::string uuid, virt::GuestCommand command) {
    if (const auto entered = co_await enter_read("run_in_guest", uuid); !entered) co_return base::fail(entered.error());
    if (auto fits = virt::check_guest_command(command); !fits) co_return base::fail(std::move(fits).error());
    const auto it = domains_.find(uuid);
    if (it == domains_.end()) co_return base::fail(Errc::not_found, "no domain with uuid " + uuid);
    GuestRun run;
    if (it->second.power == Power::running && has_agent(uuid)) {
        run = on_guest_run ? on_guest_run(uuid, command) : guest_runs_.at(uuid);
        cut(run.output, command.max_output, run.truncated);
        cut(run.errors, command.max_output, run.truncated);
    }
    co_await leave_read("run_in_guest");
    co_return run;
}

FakeHypervisor::Task<std::int64_t> FakeHypervisor::open_guest_file(std::string uuid, std::string path,
                                                                   virt::GuestFileMode mode) {
    if (const auto entered = co_await enter_read("open_guest_file", uuid); !entered)
        co_return base::fail(entered.error());
    if (const auto answers = agent_answers(uuid); !answers) co_return base::fail(answers.error());
    auto& files = guest_files_[uuid];
    if (mode == virt::GuestFileMode::write) {
        files[path].clear();
    } else if (!files.contains(path)) {
        co_return base::fail(
            Errc::state_conflict,
            fmt::format("the guest agent says: failed to open file '{}' (mode: 'rb'): No such file or directory",
                        path));
    }
    const auto handle = next_guest_handle_++;
    guest_handles_.emplace(handle, GuestHandle{std::move(uuid), std::move(path), mode, 0});
    co_await leave_read("open_guest_file");
    co_return handle;
}

FakeHypervisor::GuestHandle* FakeHypervisor::guest_handle(const std::string& uuid, std::int64_t handle,
                                                          virt::GuestFileMode mode) {
    const auto it = guest_handles_.find(handle);
    return it == guest_handles_.end() || it->second.uuid != uuid || it->second.mode != mode ? nullptr : &it->second;
}

FakeHypervisor::Task<virt::GuestPiece> FakeHypervisor::read_guest_file(std::string uuid, std::int64_t handle) {
    if (const auto entered = co_await enter_read("read_guest_file", uuid); !entered)
        co_return base::fail(entered.error());
    if (const auto answers = agent_answers(uuid); !answers) co_return base::fail(answers.error());
    auto* const open = guest_handle(uuid, handle, virt::GuestFileMode::read);
    if (open == nullptr) co_return no_handle(handle);
    // One that was removed meanwhile is read no further, where a real guest would go on.
    const auto file = guest_files_[uuid].find(open->path);
    virt::GuestPiece piece;
    if (file != guest_files_[uuid].end() && open->at < file->second.size())
        piece.bytes = file->second.substr(open->at, virt::max_guest_piece);
    open->at += piece.bytes.size();
    piece.end = piece.bytes.size() < virt::max_guest_piece;  // as a real agent: only a short read tells
    co_await leave_read("read_guest_file");
    co_return piece;
}

FakeHypervisor::Task<void> FakeHypervisor::write_guest_file(std::string uuid, std::int64_t handle, std::string bytes) {
    if (const auto entered = co_await enter_read("write_guest_file", uuid); !entered)
        co_return base::fail(entered.error());
    if (bytes.size() > virt::max_guest_piece)
        co_return base::fail(Errc::body_too_large, "that is more than is written to a guest's file in one go");
    if (const auto answers = agent_answers(uuid); !answers) co_return base::fail(answers.error());
    const auto* const open = guest_handle(uuid, handle, virt::GuestFileMode::write);
    if (open == nullptr) co_return no_handle(handle);
    guest_files_[uuid][open->path] += bytes;
    co_await leave_read("write_guest_file");
    co_return Result<void>{};
}

FakeHypervisor::Task<void> FakeHypervisor::close_guest_file(std::string uuid, std::int64_t handle) {
    if (const auto entered = co_await enter_read("close_guest_file", uuid); !entered)
        co_return base::fail(entered.error());
    if (const auto answers = agent_answers(uuid); !answers) co_return base::fail(answers.error());
    const auto it = guest_handles_.find(handle);
    if (it == guest_handles_.end() || it->second.uuid != uuid) co_return no_handle(handle);
    guest_handles_.erase(it);
    co_await leave_read("close_guest_file");
    co_return Result<void>{};
}

FakeHypervisor::Task<void> FakeHypervisor::set_guest_time(std::string uuid, base::Wall now) {
    if (const auto entered = co_await enter_read("set_guest_time", uuid); !entered)
        co_return base::fail(entered.error());
    if (const auto answers = agent_answers(uuid); !answers) co_return base::fail(answers.error());
    guest_times_[uuid].push_back(now);
    co_await leave_read("set_guest_time");
    co_return Result<void>{};
}

void FakeHypervisor::forget_guest_handles(const std::string& uuid) {
    std::erase_if(guest_handles_, [&uuid](const auto& open) { return open.second.uuid == uuid; });
}

}  // namespace ghost::fakes
