#include "agent/api/announcer.hpp"

#include "agent/api/reply.hpp"
#include "agent/json_text.hpp"
#include "agent/vm/vm_document.hpp"
#include "net/digest.hpp"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace ghost::agent::api {
namespace json = boost::json;
namespace {

constexpr std::string_view vm_prefix = "/v1/vms/";
constexpr std::string_view operation_prefix = "/v1/operations/";
constexpr std::string_view image_prefix = "/v1/images/";
constexpr std::size_t digest_digits = 16;

std::string digest_of(const json::object& resource) {
    return net::sha256_hex(json_text(resource)).substr(0, digest_digits);
}

// "running:<digest>:<name>": with what an event's type is chosen by, and what is told of a VM that is gone.
std::string version_of(const Vm& vm, const json::object& resource) {
    auto steady = resource;
    auto& status = steady.at("status").as_object();
    for (const auto* volatile_member : {"usage", "uptime_s", "observed_at"}) status.erase(volatile_member);
    // An agent that started again knows conditions only since then.
    for (auto& condition : status.at("conditions").as_array()) condition.as_object().erase("since");
    return fmt::format("{}:{}:{}", virt::name_of(vm.observed.power), digest_of(steady), vm.name);
}

std::string_view power_in(std::string_view version) { return version.substr(0, version.find(':')); }
std::string_view name_in(std::string_view version) {
    const auto first = version.find(':');
    const auto second = version.find(':', first + 1);
    return first == std::string_view::npos || second == std::string_view::npos ? "" : version.substr(second + 1);
}

// An operation that has ended changes no more, so its state tells all.
std::string version_of(const Operation& operation) {
    if (is_terminal(operation.state)) return std::string{name_of(operation.state)};
    return fmt::format("{}:{}:{}:{}", name_of(operation.state), operation.progress.phase,
                       operation.stalled ? "stalled" : "", operation.cancellable ? "cancellable" : "");
}

}  // namespace

Announcer::Announcer(Announced what) : a_(std::move(what)) {
    a_.events.collect = [this] { tell_of_vms(); };
}

void Announcer::vm(std::string_view id) {
    changed_vms_.emplace(id);
    if (domains_read_) a_.events.wake();
}

void Announcer::tell_of_vms() {
    if (!domains_read_) return;
    for (const auto& id : std::exchange(changed_vms_, {})) tell_of_vm(id);
}

void Announcer::tell_of_vm(const std::string& id) const {
    const auto subject = fmt::format("{}{}", vm_prefix, id);
    const auto* const told = a_.events.told(subject);
    const auto* vm = a_.answers.vms.find(id);
    if (vm == nullptr) {
        if (told == nullptr) return;
        json::object gone{{"id", id}, {"name", name_in(*told)}};
        a_.events.publish("vm.deleted", subject, "", std::move(gone));
        return;
    }
    auto resource = a_.answers.show(*vm);
    auto version = version_of(*vm, resource);
    std::string_view type = "vm.updated";
    if (told == nullptr)
        type = "vm.created";
    else if (power_in(*told) != power_in(version))
        type = "vm.power";
    a_.events.publish(type, subject, std::move(version), std::move(resource));
}

void Announcer::operation(const Operation& operation) {
    auto version = version_of(operation);
    auto& told = running_[operation.id];
    const auto now = a_.answers.clock.now();
    const bool progress_alone = told.version == version;
    if (progress_alone && now - told.at < progress_interval) return;
    told = {version, now};
    if (is_terminal(operation.state)) running_.erase(operation.id);
    // The same phase further on.
    if (progress_alone) version += fmt::format(":{}", operation.progress.done);
    a_.events.publish("operation.updated", fmt::format("{}{}", operation_prefix, operation.id), std::move(version),
                      to_summary(operation));
}

void Announcer::operation_forgotten(const std::string& id) const {
    a_.events.forget(fmt::format("{}{}", operation_prefix, id));
}

void Announcer::image(const std::string& name) const {
    const auto subject = fmt::format("{}{}", image_prefix, name);
    const auto* image = a_.answers.images.find(name);
    if (image == nullptr) {
        a_.events.publish("image.updated", subject, "", {{"name", name}, {"state", "deleted"}});
        return;
    }
    auto resource = agent::to_resource(*image, a_.answers.images.used_by(*image));
    auto steady = resource;
    for (const auto* volatile_member : {"last_used_at", "used_by"}) steady.erase(volatile_member);
    a_.events.publish("image.updated", subject, digest_of(steady), std::move(resource));
}

void Announcer::agent() const {
    auto resource = a_.answers.agent();
    auto steady = resource;
    for (const auto* volatile_member : {"last_beat_at", "round_trip_ms"})
        steady.at("core").as_object().erase(volatile_member);
    auto version = digest_of(steady);
    a_.events.publish("agent.updated", "/v1", std::move(version), std::move(resource));
}

void Announcer::guest_access(const GuestAccess& access) const {
    a_.events.tell("vm.guest_access", fmt::format("{}{}", vm_prefix, access.vm), to_json(access));
}

void Announcer::settle_history() {
    std::vector<std::string> lost;
    for (const auto& [subject, version] : a_.events.subjects())
        if (subject.starts_with(operation_prefix) &&
            a_.answers.operations.find(subject.substr(operation_prefix.size())) == nullptr)
            lost.push_back(subject);
    for (const auto& subject : lost) a_.events.forget(subject);
    for (const auto& op : a_.answers.operations.list())
        if (is_terminal(op->state)) operation(*op);
    std::vector<std::string> images;
    for (const auto& [subject, version] : a_.events.subjects())
        if (subject.starts_with(image_prefix)) images.push_back(subject.substr(image_prefix.size()));
    for (const auto& [name, known] : a_.answers.images.all()) images.push_back(name);
    for (const auto& name : images) image(name);
}

// Some were listed as they are not.
void Announcer::tell_of_vms_anew() const {
    const auto subjects = a_.events.subjects();
    for (const auto& [subject, version] : subjects)
        if (subject.starts_with(vm_prefix))
            a_.events.tell_anew(subject, fmt::format("{}:?:{}", power_in(version), name_in(version)));
}

void Announcer::domains_are_read() {
    if (domains_read_) return;
    domains_read_ = true;
    if (a_.events.subjects_are_known()) tell_of_vms_anew();
    for (const auto& [subject, version] : a_.events.subjects())
        if (subject.starts_with(vm_prefix)) changed_vms_.insert(subject.substr(vm_prefix.size()));
    for (const auto& [id, vm] : a_.answers.vms.all()) changed_vms_.insert(id);
    a_.events.wake();
}

}  // namespace ghost::agent::api
