#include "agent/cli/errors.hpp"

#include "agent/cli/facts.hpp"
#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

namespace ghost::cli {
namespace json = boost::json;
namespace {

// The problem's `drain`, of an answer or of an operation's error: new VMs are refused until somebody ends that.
bool is_drained(const json::object& problem) {
    return object_at(problem, "drain") != nullptr || object_at(part(problem, "facts"), "drain") != nullptr;
}

ExitCode exit_code_of(unsigned status, std::string_view code) {
    // An operation's error may come without a status; its code says the same.
    static constexpr std::array refusals{"unauthenticated",
                                         "forbidden",
                                         "protected",
                                         "already_exists",
                                         "state_conflict",
                                         "operation_in_progress",
                                         "insufficient_resources",
                                         "insufficient_storage",
                                         "precondition_failed",
                                         "validation_failed",
                                         "idempotency_mismatch",
                                         "rate_limited",
                                         "overloaded",
                                         "invalid_image",
                                         "checksum_mismatch",
                                         "signature_invalid",
                                         "unverified_image",
                                         "address_not_allowed"};
    switch (status) {
        case 404: return ExitCode::not_found;
        case 401:
        case 403:
        case 409:
        case 412:
        case 422:
        case 429:
        case 507: return ExitCode::refused;
        case 0: break;
        default: return ExitCode::failed;
    }
    if (code == "not_found") return ExitCode::not_found;
    return std::ranges::find(refusals, code) != refusals.end() ? ExitCode::refused : ExitCode::failed;
}

struct Hint {
    std::string_view code;
    std::string_view text;
};
constexpr std::array hints{
    Hint{"unauthenticated", "give a client certificate: --cert and --key (or GHOST_CERT and GHOST_KEY)"},
    Hint{"protected", "'ghostctl vm update NAME --unprotected' takes the protection off"},
    Hint{"already_exists", "choose another name, or delete what has it"},
    Hint{"insufficient_resources", "'ghostctl resources' shows what is free; ask for less, or stop something"},
    Hint{"insufficient_storage", "'ghostctl resources' shows what is free; ask for less, or delete something"},
    Hint{"hypervisor_unavailable",
         "is libvirtd running? sudo systemctl status libvirtd; 'ghostctl status' says since when"},
    Hint{"draining", "the agent is stopping; try again when it is back"},
    Hint{"interrupted", "the agent was stopped meanwhile; run the command again"},
    Hint{"invalid_image", "see what 'qemu-img info FILE' says; a raw image needs --format raw"},
    Hint{"checksum_mismatch", "the file is not the one the checksum was made of; fetch it again or correct --checksum"},
    Hint{"signature_invalid",
         "the vendor's checksum list may be tampered with: don't use it; try another network or later"},
    Hint{"unverified_image", "give --checksum sha256:HEX, or take it as it is with --allow-unverified"},
    Hint{"source_unavailable", "check the address, and that the agent's machine can reach it (HTTPS_PROXY?)"},
    Hint{"address_not_allowed",
         "only public addresses are fetched from; images.allow_private_addresses in agent.yaml allows others"},
    Hint{"internal", "the agent's log has more: sudo journalctl -u ghost-agent"},
};

// Of a way into a VM; nullopt: what is said otherwise fits.
std::optional<std::string_view> hint_for_way_in(std::string_view code, std::string_view target) {
    if (!target.starts_with("/v1/vms/")) return std::nullopt;
    const bool in_guest = target.ends_with("/exec") || target.ends_with("/files");
    if (code == "forbidden" && in_guest) return "'ghostctl vm update NAME --guest-access' lets exec and cp into it";
    if (code == "not_found" && target.ends_with("/files")) return "";  // the file, more likely than the VM
    if (!target.ends_with("/forward")) return std::nullopt;
    if (code == "source_unavailable")
        return "does a program in the guest listen on that port, and not only on its 127.0.0.1?";
    return code == "address_not_allowed" ? std::optional<std::string_view>{""} : std::nullopt;
}

std::string hint_for(std::string_view code, std::string_view target, const json::object& problem,
                     std::string_view retry_after) {
    if (const auto hint = hint_for_way_in(code, target)) return std::string{*hint};
    if (code == "not_found") {
        // What a create didn't find is the image's file.
        if (target == "/v1/vms") return "'ghostctl image list' shows the images there are";
        for (const auto& [prefix, what] : {std::pair{"/v1/vms/", "vm"}, std::pair{"/v1/images/", "image"},
                                           std::pair{"/v1/operations/", "operation"}})
            if (target.starts_with(prefix)) return fmt::format("'ghostctl {} list' shows what is there", what);
        return {};
    }
    if (code == "operation_in_progress") {
        auto link = text_at(problem, "operation");
        if (link.empty()) link = text_at(problem, "facts", "operation");
        const auto id = link.substr(link.rfind('/') + 1);  // npos + 1 is 0: no slash, all of it
        return id.empty() ? "'ghostctl operation list' shows it"
                          : fmt::format("wait for it: ghostctl operation wait {}", id);
    }
    if (code == "validation_failed") {
        if (const auto* const faults = array_at(problem, "errors"))
            for (const auto& fault : *faults)
                if (fault.is_object() && text_at(fault.get_object(), "pointer") == "/spec/image")
                    return "'ghostctl image list' shows the images there are, --remote those that can be fetched";
        return "'ghostctl COMMAND --help' says what each option takes";
    }
    if (code == "draining" && is_drained(problem))
        return "VMs that are there can be used meanwhile; 'ghostctl agent undrain' ends it";
    if (code == "state_conflict") {
        if (target.starts_with("/v1/images")) return "'ghostctl vm list' shows the VMs; delete those that use it first";
        return target.starts_with("/v1/operations") ? "'ghostctl operation list' shows how it stands"
                                                    : "'ghostctl vm list' shows how it stands";
    }
    // Who may read which of the agent's files is the one refusal there is a way around.
    if (code == "forbidden" && target.starts_with("/v1/images") &&
        text_at(problem, "detail").contains("images.import_dirs"))
        return "run it on the agent's machine over its socket, or use a file in one of the agent's images.import_dirs";
    if (code == "overloaded" || code == "rate_limited")
        return retry_after.empty() ? "try again in a moment" : fmt::format("try again in {} s", retry_after);
    const auto* const it = std::ranges::find(hints, code, &Hint::code);
    return it == hints.end() ? std::string{} : std::string{it->text};
}

void add_facts(const json::object& members, std::vector<std::string>& details) {
    static constexpr std::array known{"type",   "title", "status",   "detail",    "code", "request_id",
                                      "errors", "facts", "instance", "operation", "drain"};
    for (const auto& member : members)
        if (std::ranges::find(known, std::string_view{member.key()}) == known.end() && !member.value().is_null())
            details.push_back(fact(member.key(), member.value()));
}

Failure failure_of_problem(unsigned status, const json::object& problem, std::string_view retry_after,
                           std::string_view target) {
    Failure failure;
    const auto code = text_at(problem, "code");
    // With 503 as an agent has that stops; but it was understood, and asking again is no use.
    failure.code = is_drained(problem) ? ExitCode::refused : exit_code_of(status, code);
    failure.sentence = text_at(problem, "detail");
    // The hint says how from here.
    constexpr std::string_view over_rest = "; POST /v1/agent/undrain ends that";
    if (failure.sentence.ends_with(over_rest)) failure.sentence.resize(failure.sentence.size() - over_rest.size());
    if (failure.sentence.empty()) failure.sentence = text_at(problem, "title");
    if (failure.sentence.empty()) failure.sentence = code.empty() ? "the agent gave no reason" : code;
    if (const auto* faults = array_at(problem, "errors"))
        for (const auto& fault : *faults) {
            if (!fault.is_object()) continue;
            const auto pointer = text_at(fault.get_object(), "pointer");
            auto line = fmt::format("{}: {}", pointer.empty() ? "the document" : pointer,
                                    text_at(fault.get_object(), "detail"));
            // Of one fault alone the agent makes its sentence.
            if (line != failure.sentence) failure.details.push_back(std::move(line));
        }
    add_facts(problem, failure.details);
    if (const auto* facts = object_at(problem, "facts")) add_facts(*facts, failure.details);
    failure.hint = hint_for(code, target.substr(0, target.find('?')), problem, retry_after);
    failure.request_id = text_at(problem, "request_id");
    // A drain lasts until somebody ends it.
    failure.passing = status == 429 || (status == 503 && !is_drained(problem));
    return failure;
}

bool mentions(std::string_view text, std::initializer_list<std::string_view> words) {
    const auto same = [](char a, char b) { return (a | 0x20) == (b | 0x20); };
    return std::ranges::any_of(words,
                               [&](std::string_view word) { return !std::ranges::search(text, word, same).empty(); });
}

// The other side ended the connection, and not in words.
bool hung_up(std::string_view detail) {
    return mentions(detail, {"reset", "end of", "closed", "truncated", "broken pipe"});
}

Failure no_socket(const std::string& path, SocketState socket, const std::string& detail) {
    constexpr std::string_view running = "is ghost-agent running? sudo systemctl status ghost-agent";
    switch (socket) {
        case SocketState::missing:
            return {ExitCode::no_agent, fmt::format("there is no socket {}", path), {}, std::string{running}};
        case SocketState::not_a_socket:
            return {ExitCode::no_agent,
                    fmt::format("{} is not a socket", path),
                    {},
                    "name the agent's socket with --socket or GHOST_SOCKET"};
        case SocketState::forbidden:
            return {ExitCode::no_agent,
                    fmt::format("permission denied on {}", path),
                    {},
                    "you are not in group 'ghost': sudo usermod -aG ghost $USER, then log in again; or use sudo"};
        case SocketState::present: break;
    }
    return {ExitCode::no_agent, detail, {}, std::string{running}};
}

std::string https_hint(std::string_view detail, const HttpsAddress& address) {
    if (mentions(detail, {"unknown ca", "certificate required", "bad certificate", "certificate unknown", "unknown_ca",
                          "revoked"}))
        return "the agent doesn't accept this client certificate: is it of the agent's api.tls_ca, and still valid?";
    if (mentions(detail, {"host name", "hostname", "mismatch"}))
        return fmt::format("the agent's certificate is not for '{}': use a name it was made for", address.host);
    if (mentions(detail, {"expired"})) return "a certificate has expired; is this machine's clock right?";
    if (mentions(detail, {"not yet valid"})) return "a certificate isn't valid yet; is this machine's clock right?";
    if (mentions(detail, {"certificate", "issuer", "self-signed", "self signed", "verify"}))
        return address.ca.empty() ? "name the CA of the agent's certificate with --cacert or GHOST_CACERT"
                                  : fmt::format("is {} the CA of the agent's certificate?", address.ca);
    if (mentions(detail, {"resolve", "not found", "name or service"})) return "is the host's name right?";
    // With TLS 1.3 a server says no to a client's certificate only after the handshake, by hanging up.
    if (hung_up(detail))
        return "it hung up: does it accept this client certificate, and is that the HTTPS port (api.listen_addr)?";
    if (mentions(detail, {"handshake", "ssl", "tls", "wrong version"}))
        return "is that the agent's HTTPS port (api.listen_addr)?";
    return "is ghost-agent running there, with certificates, and listening on that address (api.listen_addr)?";
}

}  // namespace

std::string describe(const Failure& failure) {
    auto out = fmt::format("ghostctl: {}\n", printable(failure.sentence));
    for (const auto& line : failure.details) out += fmt::format("  {}\n", printable(line));
    if (!failure.hint.empty()) out += fmt::format("hint: {}\n", printable(failure.hint));
    if (!failure.request_id.empty()) out += fmt::format("request id: {}\n", printable(failure.request_id));
    return out;
}

Failure failure_of_answer(unsigned status, std::string_view body, std::string_view retry_after,
                          std::string_view target) {
    const auto problem = parse_document(body);
    if (problem && problem->is_object() && problem->get_object().contains("code"))
        return failure_of_problem(status, problem->get_object(), retry_after, target);
    return {exit_code_of(status, ""),
            fmt::format("the agent answered {} {}", status, target),
            {},
            "is that a ghost-agent?",
            {},
            status == 429 || status == 503};
}

Failure failure_of_answer(const net::ClientResponse& answer, std::string_view target) {
    return failure_of_answer(answer.status, answer.body, answer.headers.find("Retry-After").value_or(""), target);
}

Failure failure_of_operation(const json::object& operation) {
    const auto* error = object_at(operation, "error");
    if (error == nullptr) return {ExitCode::failed, "the operation failed without a reason"};
    const auto status = number_at(*error, "status").value_or(0);
    const bool sane = status >= 100 && status < 600;
    // Not the operation's own path: what wasn't found is another thing.
    auto failure = failure_of_problem(sane ? static_cast<unsigned>(status) : 0U, *error, "", "");
    if (failure.request_id.empty()) failure.request_id = text_at(operation, "request_id");
    failure.passing = false;
    return failure;
}

Failure failure_of_connection(const base::Error& error, const Address& address, SocketState socket) {
    if (error.code == base::Errc::cancelled) return {ExitCode::failed, "interrupted"};
    auto failure = [&]() -> Failure {
        if (error.code == base::Errc::body_too_large)
            return {ExitCode::failed, fmt::format("the agent's answer is too large: {}", error.detail)};
        if (const auto* local = std::get_if<SocketAddress>(&address)) {
            if (error.code == base::Errc::deadline_exceeded)
                return {ExitCode::no_agent,
                        fmt::format("the agent on {} did not answer in time", local->path),
                        {},
                        "is it stuck? sudo journalctl -u ghost-agent",
                        {},
                        true};
            return no_socket(local->path, socket, error.detail);
        }
        const auto& remote = std::get<HttpsAddress>(address);
        if (error.code == base::Errc::deadline_exceeded)
            return {ExitCode::no_agent,
                    fmt::format("no answer from {}:{} in time", remote.host, remote.port),
                    {},
                    "is the address right, and no firewall between?",
                    {},
                    true};
        return {ExitCode::no_agent, error.detail, {}, https_hint(error.detail, remote)};
    }();
    failure.passing = failure.code == ExitCode::no_agent;
    failure.cut = error.code == base::Errc::source_unavailable && hung_up(error.detail);
    failure.unanswered = failure.cut || error.code == base::Errc::deadline_exceeded;
    return failure;
}

}  // namespace ghost::cli
