#include "storage/part_record.hpp"

#include "storage/boot_id.hpp"

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::size_t longest = 64 * 1024;

std::string text_in(const json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

std::optional<std::uint64_t> number_in(const json::object& object, std::string_view key) {
    const auto* const value = object.if_contains(key);
    json::error_code fault;
    const auto number = value != nullptr ? value->to_number<std::uint64_t>(fault) : 0;
    return value == nullptr || fault ? std::nullopt : std::optional{number};
}

std::string beside(const std::string& part) { return part + ".json"; }

}  // namespace

asio::awaitable<std::optional<KeptPart>> read_part_record(Files& files, std::string part) {
    const auto text = co_await files.read(beside(part), longest);
    json::error_code fault;
    const auto document = text ? json::parse(*text, fault) : json::value{};
    if (!text || fault || !document.is_object()) co_return std::nullopt;
    const auto& object = document.get_object();
    co_return KeptPart{{text_in(object, "url"), text_in(object, "validator"), number_in(object, "total")},
                       text_in(object, "boot"),
                       base::from_unix_ms(static_cast<std::int64_t>(number_in(object, "at").value_or(0)))};
}

asio::awaitable<base::Result<void>> write_part_record(Files& files, std::string part, PartRecord record,
                                                      base::Wall now) {
    const auto boot = co_await boot_id(files);
    json::object document{{"url", record.url},
                          {"validator", record.validator},
                          {"boot", boot ? json::value(*boot) : json::value(nullptr)},
                          {"at", base::to_unix_ms(now)}};
    if (record.total) document["total"] = *record.total;
    co_return co_await files.write(beside(part), json::serialize(document), 0600);
}

asio::awaitable<base::Result<void>> remove_part_files(Files& files, std::string part) {
    auto gone = co_await files.remove(part);
    if (!gone) co_return gone;
    co_return co_await files.remove(beside(part));
}

}  // namespace ghost::storage
