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
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

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

struct VmRef {
    std::string target;  // "/v1/vms/web"
    std::string name;    // as its person knows it
};
struct OpenConsole {
    VmRef vm;
    bool force = false;
    bool read_only = false;
};
struct PortForward {
    std::string host_address;     // an IP address
    std::uint16_t host_port = 0;  // 0: any
    std::uint16_t guest_port = 0;
};
struct ForwardPorts {
    VmRef vm;
    std::vector<PortForward> ports;
};
// One connection, on standard input and output.
struct ForwardStdio {
    VmRef vm;
    std::uint16_t guest_port = 0;
};
// ssh with what it needs to know of the VM.
struct StartSsh {
    VmRef vm;
    std::string user = {};                 // empty: whom the VM was made for
    std::vector<std::string> words = {};   // ssh's, after the host
    std::vector<std::string> caller = {};  // this program and the options that say where the agent is
    std::string known_hosts = {};          // the file for keys that the agent doesn't know
    bool print = false;                    // the command, instead of running it
};
// As ssh's KnownHostsCommand prints them.
struct ShowHostKeys {
    VmRef vm;
};
struct CopyFile {
    VmRef vm;
    std::string guest_path;
    std::string local_path;  // "-": standard input or output
    bool to_guest = false;
};
struct ExecCommand {
    VmRef vm;
    std::vector<std::string> command;
    std::vector<std::pair<std::string, std::string>> environment = {};
    bool with_input = false;  // standard input is the command's
    std::chrono::seconds limit{60};
    std::string idempotency_key = {};  // empty: one is made
};
struct OpenScreen {
    VmRef vm;
    std::optional<PortForward> listen = {};  // instead of a socket and a viewer
};
struct TakeScreenshot {
    VmRef vm;
    std::string file;  // "-": standard output
};
using Action = std::variant<ShowStatus, ShowVersion, ShowOne, ShowList, Change, WaitForOperation, FollowEvents,
                            WatchVms, OpenConsole, ForwardPorts, ForwardStdio, StartSsh, ShowHostKeys, CopyFile,
                            ExecCommand, OpenScreen, TakeScreenshot>;

struct Invocation {
    Address address;
    Format format = Format::table;
    Action action;
};

}  // namespace ghost::cli
