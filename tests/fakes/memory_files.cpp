#include "fakes/memory_files.hpp"

#include "fakes/memory_change.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <ranges>

namespace ghost::fakes {
namespace {

using base::Errc;
namespace asio = boost::asio;

std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

auto missing(std::string_view path) {
    return base::fail(Errc::not_found, fmt::format("{}: No such file or directory", path));
}

std::string digest(const EVP_MD* kind, std::string_view bytes) {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_Digest(bytes.data(), bytes.size(), out, &length, kind, nullptr);
    std::string hex;
    for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", out[i]);
    return hex;
}

// As the real one's: where a write gathers its bytes.
std::string temporary_of(const std::string& path) {
    const auto slash = path.rfind('/') + 1;
    return path.substr(0, slash) + "." + path.substr(slash) + ".new";
}

}  // namespace

void MemoryFiles::crash(base::Random& random) {
    for (const auto& change : under_way_) {
        const auto fate = random.next() % 3;
        if (fate == 0) change.whole();
        if (fate == 1 && change.half) change.half(random);
    }
    off_ = true;
}

boost::asio::awaitable<base::Result<void>> MemoryFiles::turn() {
    co_await asio::post(asio::use_awaitable);
    if (const auto more = more_turns ? more_turns() : 0; more > 0) {
        // What was begun isn't interrupted.
        const auto throws = co_await asio::this_coro::throw_if_cancelled();
        co_await asio::this_coro::throw_if_cancelled(false);
        for (auto left = more; left > 0; --left) co_await asio::post(asio::use_awaitable);
        co_await asio::this_coro::throw_if_cancelled(throws);
    }
    if (off_) co_return base::fail(Errc::io_error, "the machine is off");
    co_return base::Result<void>{};
}

void MemoryFiles::put(const std::string& path, std::string bytes, unsigned mode) {
    put_directory(parent_of(path));
    nodes_[path] = {std::move(bytes), mode, false};
}

void MemoryFiles::put_directory(const std::string& path) {
    for (auto at = path; !nodes_.contains(at); at = parent_of(at)) nodes_[at] = {"", 0755, true};
}

const MemoryFiles::Node* MemoryFiles::find(const std::string& path) const {
    const auto it = nodes_.find(path);
    return it == nodes_.end() ? nullptr : &it->second;
}

std::vector<std::string> MemoryFiles::files() const {
    std::vector<std::string> paths;
    for (const auto& [path, node] : nodes_)
        if (!node.directory && !path.starts_with("/proc/")) paths.push_back(path);
    return paths;
}

std::string MemoryFiles::mount_of(const std::string& path) const {
    std::string found;
    for (const auto& [directory, bytes] : mounts_)
        if ((path + "/").starts_with(directory) && directory.size() > found.size()) found = directory;
    return found;
}

storage::Space MemoryFiles::space_at(const std::string& path) const {
    const auto mount = mount_of(path);
    const auto place = mounts_.find(mount);
    const auto total = place == mounts_.end() ? capacity_ : place->second;
    std::uint64_t sum = 0;
    for (const auto& [name, node] : nodes_)
        if (mount_of(name) == mount) sum += node.bytes.size();
    const auto number = place == mounts_.end() ? 0 : std::distance(mounts_.begin(), place) + 1;
    return {total, total - std::min(total, sum), static_cast<std::uint64_t>(number)};
}

base::Result<void> MemoryFiles::allowed(std::string_view path) const {
    if (!bad_part_.empty() && path.find(bad_part_) != std::string_view::npos) return base::fail(bad_error_);
    return {};
}

base::Result<void> MemoryFiles::change(std::string_view path) {
    ++changes_;
    if (failing_.strikes()) return base::fail(fail_with_);
    return allowed(path);
}

base::Result<void> MemoryFiles::store(const std::string& path, std::string bytes, unsigned mode) {
    if (auto may = change(path); !may) return may;
    const auto* const parent = find(parent_of(path));
    if (parent == nullptr || !parent->directory) return missing(path);
    const auto* const old = find(path);
    if (old != nullptr && old->directory) return base::fail(Errc::io_error, path + ": Is a directory");
    const auto free = space_at(path).free + (old != nullptr ? old->bytes.size() : 0);
    if (bytes.size() > free) {
        base::Error error{Errc::insufficient_storage, path + ": No space left on device"};
        base::add_disk_facts(error, bytes.size(), free);
        return base::fail(std::move(error));
    }
    nodes_[path] = {std::move(bytes), mode, false};
    return {};
}

storage::Files::Task<std::optional<storage::FileInfo>> MemoryFiles::stat(std::string path) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    const auto* const node = find(path);
    if (node == nullptr) co_return std::nullopt;
    co_return storage::FileInfo{node->bytes.size(), node->bytes.size(), node->mode, !node->directory, node->directory};
}

storage::Files::Task<std::string> MemoryFiles::read(std::string path, std::size_t max_bytes) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    const auto* const node = find(path);
    if (node == nullptr) co_return missing(path);
    if (node->directory) co_return base::fail(Errc::io_error, path + ": Is a directory");
    if (node->bytes.size() > max_bytes)
        co_return base::fail(Errc::io_error, fmt::format("{} is larger than {} bytes", path, max_bytes));
    co_return node->bytes;
}

storage::Files::Task<std::string> MemoryFiles::read_head(std::string path, std::size_t bytes) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    const auto* const node = find(path);
    if (node == nullptr) co_return missing(path);
    if (node->directory) co_return base::fail(Errc::io_error, path + " is not a regular file");
    co_return node->bytes.substr(0, bytes);
}

storage::Files::Task<std::string> MemoryFiles::read_tail(std::string path, std::size_t bytes) {
    auto whole = co_await read_head(std::move(path), std::numeric_limits<std::size_t>::max());
    if (whole && whole->size() > bytes) whole->erase(0, whole->size() - bytes);
    co_return whole;
}

storage::Files::Task<void> MemoryFiles::write(std::string path, std::string bytes, unsigned mode) {
    const Change change{*this,
                        {[&] { static_cast<void>(store(path, bytes, mode)); },
                         [&](base::Random& random) {
                             nodes_[temporary_of(path)] = {bytes.substr(0, random.next() % (bytes.size() + 1)), mode,
                                                           false};
                         }}};
    if (auto on = co_await turn(); !on) co_return on;
    co_return store(path, bytes, mode);
}

storage::Files::Task<void> MemoryFiles::remove(std::string path) {
    const Change change{*this, {[&] { static_cast<void>(remove_now(path)); }, {}}};
    if (auto on = co_await turn(); !on) co_return on;
    co_return remove_now(path);
}

base::Result<void> MemoryFiles::remove_now(const std::string& path) {
    if (auto may = change(path); !may) return may;
    if (const auto* const node = find(path); node != nullptr && node->directory) {
        const auto inside = nodes_.upper_bound(path + "/");
        if (inside != nodes_.end() && inside->first.starts_with(path + "/"))
            return base::fail(Errc::io_error, path + ": Directory not empty");
    }
    nodes_.erase(temporary_of(path));
    nodes_.erase(path);
    return {};
}

storage::Files::Task<void> MemoryFiles::rename(std::string from, std::string to) {
    const Change change{*this, {[&] { static_cast<void>(rename_now(from, to)); }, {}}};
    if (auto on = co_await turn(); !on) co_return on;
    co_return rename_now(from, to);
}

base::Result<void> MemoryFiles::rename_now(const std::string& from, const std::string& to) {
    if (auto may = change(to); !may) return may;
    const auto it = nodes_.find(from);
    if (it == nodes_.end() || !nodes_.contains(parent_of(to))) return missing(from);
    auto node = std::move(it->second);
    nodes_.erase(it);
    nodes_[to] = std::move(node);
    return {};
}

storage::Files::Task<void> MemoryFiles::make_directories(std::string path, unsigned mode) {
    const Change change{*this, {[&] { static_cast<void>(make_directories_now(path, mode)); }, {}}};
    if (auto on = co_await turn(); !on) co_return on;
    co_return make_directories_now(path, mode);
}

base::Result<void> MemoryFiles::make_directories_now(const std::string& path, unsigned mode) {
    if (auto may = change(path); !may) return may;
    if (const auto* const node = find(path); node != nullptr) {
        if (!node->directory) return base::fail(Errc::io_error, path + ": File exists");
        return {};
    }
    put_directory(path);
    nodes_[path].mode = mode;
    return {};
}

storage::Files::Task<std::vector<std::string>> MemoryFiles::list(std::string directory) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(directory); !may) co_return base::fail(std::move(may).error());
    const auto* const node = find(directory);
    if (node == nullptr || !node->directory) co_return missing(directory);
    std::vector<std::string> names;
    for (const auto& [path, entry] : nodes_)
        if (path != "/" && parent_of(path) == directory) names.push_back(path.substr(path.rfind('/') + 1));
    std::ranges::sort(names);
    co_return names;
}

storage::Files::Task<storage::Copied> MemoryFiles::copy(std::string from, std::string to,
                                                        storage::CopyOptions options) {
    static constexpr std::size_t chunk = 65536;
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    if (auto may = allowed(from); !may) co_return base::fail(std::move(may).error());
    const auto* const node = find(from);
    if (node == nullptr) co_return missing(from);
    if (node->directory) co_return base::fail(Errc::io_error, from + " is not a regular file");
    if (exists(to)) co_return base::fail(Errc::already_exists, to + ": File exists");
    const auto bytes = node->bytes;
    if (auto stored = store(to, bytes, options.mode); !stored) co_return base::fail(std::move(stored).error());
    co_await asio::this_coro::throw_if_cancelled(false);
    const Change change{*this,
                        {[] {},  // its bytes are all there
                         [&](base::Random& random) {
                             auto& made = nodes_[to];
                             made.bytes.resize(random.next() % (made.bytes.size() + 1));
                         }}};
    bool cancelled = false;
    for (std::size_t done = 0; done < bytes.size() && !cancelled; done += chunk) {
        if (options.progress) options.progress(std::min(done + chunk, bytes.size()), bytes.size());
        co_await asio::post(asio::use_awaitable);
        const auto state = co_await asio::this_coro::cancellation_state;
        cancelled = state.cancelled() != asio::cancellation_type::none;
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
    if (off_) co_return base::fail(Errc::io_error, "the machine is off");
    if (cancelled) {
        nodes_.erase(to);
        co_return base::fail(Errc::cancelled, "the copy was cancelled");
    }
    storage::Copied copied{bytes.size(), digest(EVP_sha256(), bytes), {}, false};
    if (options.sha512) copied.sha512 = digest(EVP_sha512(), bytes);
    co_return copied;
}

storage::Files::Task<storage::Space> MemoryFiles::space(std::string path) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    co_return space_at(path);
}

storage::Files::Task<std::string> MemoryFiles::make(std::function<base::Result<std::string>()> work) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    co_return work();
}

storage::Files::Task<std::string> MemoryFiles::resolve(std::string path) {
    if (auto on = co_await turn(); !on) co_return base::fail(std::move(on).error());
    if (auto may = allowed(path); !may) co_return base::fail(std::move(may).error());
    auto plain = std::filesystem::path{path}.lexically_normal().string();
    if (plain.size() > 1 && plain.ends_with('/')) plain.pop_back();
    if (const auto link = links_.find(plain); link != links_.end()) plain = link->second;
    if (!exists(plain)) co_return missing(path);
    co_return plain;
}

}  // namespace ghost::fakes
