// Reads a caller's JSON document by hand-written schema and collects every
// fault with its JSON Pointer, instead of stopping at the first.
#pragma once

#include "base/error.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// Depth is bounded, the whole text must be one value. invalid_json names the byte offset.
[[nodiscard]] base::Result<boost::json::value> parse_json(std::string_view text, std::size_t max_depth = 32);
// Of a text that parse_json() takes: invalid_json names a member that stands twice in its object. Whoever wrote that
// meant one of the two, and parsing keeps the last.
[[nodiscard]] base::Result<void> check_members(std::string_view text);

// One object of the document. A member that was never asked for is a fault of finish(). Sub-readers share the list of
// faults, so the outermost finish()ed reader's faults() has them all.
class JsonReader {
public:
    JsonReader(const boost::json::object& object, std::string pointer, std::vector<base::Fault>& faults)
        : object_(object), pointer_(std::move(pointer)), faults_(faults) {}

    // Absent: nullopt and no fault. Of another type or out of bounds: nullopt and a fault.
    std::optional<std::string> string(std::string_view key, std::size_t max_bytes);
    std::optional<bool> boolean(std::string_view key);
    std::optional<std::uint64_t> integer(std::string_view key, std::uint64_t min, std::uint64_t max);
    std::optional<std::string> one_of(std::string_view key, std::initializer_list<std::string_view> allowed);
    std::optional<std::vector<std::string>> strings(std::string_view key, std::size_t max_items, std::size_t max_bytes);
    const boost::json::object* object(std::string_view key);
    [[nodiscard]] bool has(std::string_view key) const { return object_.contains(key); }
    // The member is there and null (in a merge patch: removal).
    [[nodiscard]] bool is_null(std::string_view key);

    void require(std::string_view key);
    void fault(std::string_view key, std::string detail);
    // Adds a fault for each member nobody asked for.
    void finish();

    [[nodiscard]] std::string at(std::string_view key) const;
    [[nodiscard]] std::vector<base::Fault>& faults() noexcept { return faults_; }

private:
    const boost::json::value* find(std::string_view key);

    const boost::json::object& object_;
    std::string pointer_;
    std::vector<base::Fault>& faults_;
    std::set<std::string, std::less<>> asked_;
};

// A document that is to be one object, of which `read` asks for all that may be in it. Errors: validation_failed with
// every fault.
[[nodiscard]] base::Result<void> read_object(const boost::json::value& document,
                                             const std::function<void(JsonReader&)>& read);

// "a/b~c" -> "a~1b~0c", a token of an RFC 6901 JSON Pointer.
[[nodiscard]] std::string pointer_token(std::string_view key);
// What a value is, for a sentence: `a string`, `the number 3`, ...
[[nodiscard]] std::string describe(const boost::json::value& value);
// validation_failed with these faults.
[[nodiscard]] base::Error validation_error(std::vector<base::Fault> faults);

}  // namespace ghost::agent
