#include "fakes/fake_processes.hpp"

#include "storage/qcow2_header.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

namespace ghost::fakes {
namespace {

using Outcome = base::Result<base::Exit>;

Outcome failed(std::string_view words) { return base::Exit{1, {}, fmt::format("qemu-img: {}\n", words)}; }

template <class N>
void append_number(std::string& out, N value) {
    for (int shift = (static_cast<int>(sizeof(N)) - 1) * 8; shift >= 0; shift -= 8)
        out += static_cast<char>((value >> shift) & 0xff);
}

// The command line as qemu-img's getopt would see it: -x VALUE pairs (for the options the agent uses) and words.
struct Arguments {
    std::map<std::string, std::string> options;
    std::vector<std::string> words;
};

Arguments parse(const std::vector<std::string>& argv) {
    Arguments arguments;
    bool only_words = false;
    for (std::size_t i = 2; i < argv.size(); ++i) {
        const auto& word = argv[i];
        if (only_words || !word.starts_with("-"))
            arguments.words.push_back(word);
        else if (word == "--")
            only_words = true;
        else if (word == "-q" || word == "-U" || word.starts_with("--"))
            arguments.options[word] = "";
        else if (i + 1 < argv.size())
            arguments.options[word] = argv[++i];
    }
    return arguments;
}

class FakeQemuImg {
public:
    explicit FakeQemuImg(MemoryFiles& files) : files_(files) {}

    Outcome operator()(const std::vector<std::string>& argv) {
        if (argv.size() < 3 || argv[0] != "qemu-img") return base::fail(base::Errc::not_found, "no such program");
        const auto arguments = parse(argv);
        if (arguments.words.empty()) return failed("Expecting one image file name");
        if (argv[1] == "create") return create(arguments);
        const auto& path = arguments.words[0];
        const auto* const node = files_.find(path);
        if (node == nullptr)
            return failed(
                fmt::format("Could not open '{}': Could not open '{}': No such file or directory", path, path));
        const auto format = format_of(arguments, *node);
        if (format == "raw") return argv[1] == "info" ? info_raw(path, *node) : base::Exit{63, {}, {}};
        const auto header = storage::parse_qcow2_header(node->bytes);
        if (!header) return failed(fmt::format("Could not open '{}': Image is not in qcow2 format", path));
        if (argv[1] == "info") return info(path, *header, node->bytes.size());
        if (argv[1] == "check") return check(path, *header);
        if (argv[1] == "resize") return resize(arguments, *header, node->mode);
        return failed("unknown command");
    }

private:
    static std::string format_of(const Arguments& arguments, const MemoryFiles::Node& node) {
        const auto said = arguments.options.find("-f");
        if (said != arguments.options.end()) return said->second;
        return storage::recognise_format(node.bytes) == "qcow2" ? "qcow2" : "raw";
    }

    Outcome create(const Arguments& arguments) {
        if (arguments.words.size() != 2) return failed("Image creation needs a size parameter");
        const auto& path = arguments.words[0];
        const auto option = [&](const char* name) {
            const auto it = arguments.options.find(name);
            return it == arguments.options.end() ? std::string{} : it->second;
        };
        const auto backing = option("-b");
        if (!backing.empty() && !files_.exists(backing))
            return failed(fmt::format("{}: Could not open '{}': No such file or directory", path, backing));
        return written(path, std::strtoull(arguments.words[1].c_str(), nullptr, 10), backing, option("-F"));
    }

    Outcome resize(const Arguments& arguments, const storage::Qcow2Header& header, unsigned) {
        if (arguments.words.size() != 2) return failed("Expecting image file name and size");
        const auto size = std::strtoull(arguments.words[1].c_str(), nullptr, 10);
        if (size < header.virtual_size) return failed("Use the --shrink option to perform a shrink operation.");
        return written(arguments.words[0], size, header.backing_path, header.backing_format);
    }

    // As qemu-img does: the mode of a file that is there stays.
    Outcome written(const std::string& path, std::uint64_t size, std::string_view backing, std::string_view format) {
        const auto* const old = files_.find(path);
        const auto mode = old != nullptr ? old->mode : 0644U;
        auto stored = files_.store(path, qcow2_bytes(size, backing, format), mode);
        if (!stored) return failed(fmt::format("{}: {}", path, stored.error().detail));
        return base::Exit{};
    }

    static Outcome info_raw(const std::string& path, const MemoryFiles::Node& node) {
        const boost::json::object answer{{"virtual-size", (node.bytes.size() + 511) / 512 * 512},
                                         {"filename", path},
                                         {"format", "raw"},
                                         {"actual-size", node.bytes.size()},
                                         {"dirty-flag", false}};
        return base::Exit{0, boost::json::serialize(answer), {}};
    }

    static Outcome info(const std::string& path, const storage::Qcow2Header& header, std::size_t size) {
        boost::json::object answer{{"virtual-size", header.virtual_size},
                                   {"filename", path},
                                   {"format", "qcow2"},
                                   {"actual-size", size},
                                   {"dirty-flag", false}};
        answer["format-specific"] = {{"type", "qcow2"}, {"data", {{"compat", "1.1"}, {"corrupt", header.corrupt}}}};
        if (!header.backing_path.empty()) {
            answer["backing-filename"] = header.backing_path;
            answer["full-backing-filename"] = header.backing_path;
            if (!header.backing_format.empty()) answer["backing-filename-format"] = header.backing_format;
        }
        return base::Exit{0, boost::json::serialize(answer), {}};
    }

    static Outcome check(const std::string& path, const storage::Qcow2Header& header) {
        boost::json::object answer{{"filename", path}, {"format", "qcow2"}, {"check-errors", 0}};
        if (header.corrupt) answer["corruptions"] = 1;
        return base::Exit{header.corrupt ? 2 : 0, boost::json::serialize(answer), {}};
    }

    MemoryFiles& files_;
};

}  // namespace

boost::asio::awaitable<base::Result<base::Exit>> FakeProcesses::run(base::Command command) {
    co_await boost::asio::post(boost::asio::use_awaitable);
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    if (state.cancelled() != boost::asio::cancellation_type::none)
        co_return base::fail(base::Errc::cancelled, "cancelled before it ran");
    calls_.push_back(command.argv);
    if (failing_.strikes()) co_return outcome_;
    if (!answer_) co_return base::fail(base::Errc::not_found, command.argv.at(0) + ": no such program");
    co_return answer_(command.argv);
}

std::size_t FakeProcesses::calls_with(std::string_view word) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        calls_, [word](const auto& argv) { return std::ranges::find(argv, word) != argv.end(); }));
}

FakeProcesses::Answer fake_qemu_img(MemoryFiles& files) { return FakeQemuImg{files}; }

std::string qcow2_bytes(std::uint64_t virtual_size, std::string_view backing_path, std::string_view backing_format) {
    std::string extensions;
    if (!backing_format.empty()) {
        append_number(extensions, std::uint32_t{0xe2792aca});
        append_number(extensions, static_cast<std::uint32_t>(backing_format.size()));
        extensions += backing_format;
        extensions.resize((extensions.size() + 7) / 8 * 8);
    }
    extensions.resize(extensions.size() + 8);  // the end
    std::string head;
    append_number(head, std::uint32_t{0x514649fb});
    append_number(head, std::uint32_t{3});
    append_number(head, backing_path.empty() ? std::uint64_t{0} : std::uint64_t{104 + extensions.size()});
    append_number(head, static_cast<std::uint32_t>(backing_path.size()));
    append_number(head, std::uint32_t{16});
    append_number(head, virtual_size);
    head.resize(100);  // no encryption, no tables, no features
    append_number(head, std::uint32_t{104});
    head += extensions;
    head += backing_path;
    head.resize(std::max<std::size_t>(head.size(), 512));
    return head;
}

}  // namespace ghost::fakes
