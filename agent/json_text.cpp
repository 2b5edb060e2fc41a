#include "agent/json_text.hpp"

#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace ghost::agent {
namespace json = boost::json;
namespace {

void append(std::string& out, const json::value& value);

void append(std::string& out, const json::object& object) {
    out += '{';
    bool first = true;
    for (const auto& member : object) {
        if (!first) out += ',';
        first = false;
        out += json::serialize(json::string_view{member.key()});
        out += ':';
        append(out, member.value());
    }
    out += '}';
}

void append(std::string& out, const json::array& array) {
    out += '[';
    bool first = true;
    for (const auto& item : array) {
        if (!first) out += ',';
        first = false;
        append(out, item);
    }
    out += ']';
}

void append(std::string& out, const json::value& value) {
    switch (value.kind()) {
        case json::kind::object: append(out, value.get_object()); break;
        case json::kind::array: append(out, value.get_array()); break;
        case json::kind::double_:
            if (std::isfinite(value.get_double()))
                fmt::format_to(std::back_inserter(out), "{}", value.get_double());
            else
                out += "null";
            break;
        case json::kind::null:
        case json::kind::bool_:
        case json::kind::int64:
        case json::kind::uint64:
        case json::kind::string: out += json::serialize(value); break;
    }
}

}  // namespace

std::string json_text(const json::value& value) {
    std::string out;
    append(out, value);
    return out;
}

}  // namespace ghost::agent
