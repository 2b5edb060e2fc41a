// What guests say of themselves: their agents' answers, and cloud-init's status in either dialect.
#include "agent/vm/guest_ready.hpp"
#include "base/base64.hpp"
#include "net/text.hpp"
#include "virt/guest_agent.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

using namespace ghost;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    (void)virt::read_guest_exec(text);
    (void)virt::allows_guest_exec(text);
    (void)virt::read_guest_file_open(text);
    (void)virt::read_guest_file_write(text);
    if (const auto piece = virt::read_guest_file_read(text); piece && piece->bytes.size() > virt::max_guest_piece)
        std::abort();
    const auto ended = virt::read_guest_exec_status(text, 16);
    if (ended && ended->how == virt::GuestRun::How::exited && (ended->output.size() > 16 || ended->errors.size() > 16))
        std::abort();
    if (base::from_base64(base::to_base64(text), size) != text) std::abort();
    for (const auto dialect : {agent::CloudInitDialect::json, agent::CloudInitDialect::lines})
        for (const int code : {0, 1, 2, 127}) {
            const virt::GuestRun run{virt::GuestRun::How::exited, code, std::string{text}};
            const auto told = agent::guest_readiness(run, dialect);
            if (!told) continue;
            // Short, plain text, whatever the guest wrote.
            const bool plain = told->message.find_first_of("\n\r\x1b") == std::string::npos;
            if (!plain || !net::is_utf8(told->message) || told->message.size() > 2000) std::abort();
        }
    return 0;
}
