// A command line as data: what is to be asked of which agent and how the answer
// is shown. Made without I/O (command_line.hpp), carried out by Session.
#pragma once

#include "agent/cli/event_lines.hpp"
#include "agent/cli/vm_filter.hpp"
#include "net/http.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>

namespace ghost::cli {

enum class Format : std::uint8_t { table, json, yaml, name };

// What kind of thing an answer is, and so how a table, a page or a name is made of it.
enum class View : std::uint8_t { vm, image, catalogue, operation, resources, orphan, agent };

// Where the agent is.
struct SocketAddress {
    std::string path;
};
struct HttpsAddress {
    std::string host;
    std::string port;
    std::string certificate;  // client certificate and key, PEM files; empty: none
    std::string key;
    std::string ca;  // empty: the system's certificate store
};
using Address = std::variant<SocketAddress, HttpsAddress>;

struct Waiting {
    bool wait = true;
    std::chrono::seconds limit{std::chrono::minutes{10}};
};

struct ShowStatus {};
struct ShowVersion {};
struct ShowOne {
    std::string target;
    View view;
};
struct ShowList {
    std::string target;  // with its filters; pages are followed
    View view;
    bool has_pages = true;  // the route knows ?limit
};
// A POST, PATCH or DELETE that answers with an operation, which is then followed.
struct Change {
    net::Method method = net::Method::post;
    std::string target;
    std::string body;  // JSON, or nothing
    View view = View::vm;
    std::string subject;   // "VM web", as sentences name it
    std::string done;      // "started": what has happened when all went well
    std::string question;  // asked on a terminal before anything is sent; empty: nothing to ask
    Waiting waiting = {};
    bool ends_cancelled = false;       // success is that the operation ends cancelled
    bool dry_run = false;              // the target asks for one: the answer says what would be done
    std::string idempotency_key = {};  // empty: one is made
};
struct WaitForOperation {
    std::string id;
    Waiting waiting = {};
};
struct FollowEvents {
    EventFilter filter = {};
    std::string after = {};  // an event's id; empty: from now on
};
struct WatchVms {
    VmFilter filter = {};
};
using Action =
    std::variant<ShowStatus, ShowVersion, ShowOne, ShowList, Change, WaitForOperation, FollowEvents, WatchVms>;

struct Invocation {
    Address address;
    Format format = Format::table;
    Action action;
};

}  // namespace ghost::cli
