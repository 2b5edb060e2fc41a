// What vendors' servers say: addresses, lists of checksums, and whole downloads answered by anything at all.
#include "net/url.hpp"
#include "storage/checksum.hpp"
#include "storage/fetch_plan.hpp"
#include "storage/signature.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

using namespace ghost;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

class SameRandom final : public base::Random {
public:
    void fill(std::span<std::byte> out) override { std::ranges::fill(out, std::byte{0x5a}); }
};

// The input, a line at a time; its end is an empty one.
std::string_view line_of(std::string_view& text) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

void follow(std::string_view text) {
    const auto base = net::parse_url("https://a.example/b/c?d").value();
    const auto next = net::resolve(base, text);
    if (!next) return;
    // What is gone on with is well-formed, and stays as it is.
    const auto again = net::parse_url(net::to_string(*next));
    must(again.has_value() && net::to_string(*again) == net::to_string(*next));
    must(next->target.find_first_of(" \r\n") == std::string::npos);
}

void download(std::string_view text) {
    const bool checksum = !text.empty() && (text.front() & 1) != 0;
    SameRandom random;
    storage::FetchPlan plan{{{"https://a.example/i", "https://b.example/i"}, checksum}, {}, 0};
    // An answer is two lines: status and length, then headers with '|' between them.
    for (int step = 0; step < 3000; ++step) {
        auto next = plan.next(random);
        if (std::holds_alternative<storage::FetchPlan::Complete>(next)) {
            must(plan.record().total == plan.have());
            return;
        }
        if (std::holds_alternative<storage::FetchPlan::GiveUp>(next)) return;
        const auto* ask = std::get_if<storage::FetchPlan::Ask>(&next);
        if (ask == nullptr) continue;
        must(ask->from == 0 || ask->from == plan.have());
        const auto said = line_of(text);
        auto head = line_of(text);
        net::Headers headers;
        while (!head.empty()) {
            const auto end = std::min(head.find('|'), head.size());
            const auto field = head.substr(0, end);
            head.remove_prefix(std::min(end + 1, head.size()));
            const auto colon = field.find(':');
            if (colon == std::string_view::npos) continue;
            headers.add(std::string{field.substr(0, colon)}, std::string{field.substr(colon + 1)});
        }
        const unsigned status = said.size() > 1 ? (said[0] == 'p' ? 206U : said[0] == 'w' ? 200U : 416U) : 503U;
        const auto body = plan.on_head(status, headers);
        const auto have = plan.have();
        if (body == storage::FetchPlan::Body::start_over) must(have == 0);
        if (body != storage::FetchPlan::Body::refuse)
            for (const char c : said.substr(std::min<std::size_t>(1, said.size())))
                if (!plan.on_bytes(static_cast<unsigned char>(c) * 1000ULL)) break;
        must(plan.have() >= have);
        if (said.ends_with('c'))
            plan.on_end({{base::Errc::source_unavailable, "cut"}});
        else
            plan.on_end();
    }
    std::abort();  // it never ends
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    follow(text);
    if (const auto found = storage::find_checksum(text, "image.qcow2"))
        must(storage::parse_checksum(storage::to_string(*found)) == *found);
    (void)storage::read_gpgv_status(text);
    download(text);
    return 0;
}
