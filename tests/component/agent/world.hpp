// A whole agent in memory: App with every seam a fake, on virtual time.
#pragma once

#include "agent/app.hpp"
#include "fakes/fake_hypervisor.hpp"
#include "fakes/fake_processes.hpp"
#include "fakes/fake_web.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/memory_server.hpp"
#include "fakes/memory_store.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "unit/base/recording_sink.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/value.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::tests {

struct Reply {
    unsigned status = 0;
    boost::json::value body;
    net::Headers headers;

    [[nodiscard]] const boost::json::value& at(std::string_view pointer) const { return body.at_pointer(pointer); }
    [[nodiscard]] std::string text(std::string_view pointer) const { return std::string{at(pointer).as_string()}; }
};

// What one reader of the event stream was sent.
struct Watcher {
    struct Event {
        std::uint64_t id = 0;
        std::string type;
        std::string subject;
        boost::json::value data;
    };
    unsigned status = 0;
    std::string code;  // of the problem, when there is no stream
    std::vector<Event> events;
    std::size_t pings = 0;
    bool ended = false;
    boost::asio::cancellation_signal leave;  // hangs up

    [[nodiscard]] std::vector<std::string> types() const;
    // The types of the events about `subject`, in order.
    [[nodiscard]] std::vector<std::string> types_of(std::string_view subject) const;
};

// The disks, the database and the hypervisor outlive an agent: boot() and crash() as often as a test likes.
class World {
public:
    static constexpr auto boot_id_file = "/proc/sys/kernel/random/boot_id";

    World();
    ~World();

    // What boot() does to the new hypervisor before the agent sees it.
    std::function<void(fakes::FakeHypervisor&)> before_boot;
    // Starts an agent and lets it read its domains.
    void boot();
    // Stops it as SIGTERM does.
    void shut_down();
    // The agent is gone between two instructions, as after kill -9: nothing of it is finished or undone.
    void crash();

    // Runs the loop until nothing is ready; time stands still.
    void settle();
    // Lets time pass, and what wakes in it run.
    void pass(base::Duration span);

    Reply call(net::Method method, std::string target, std::optional<boost::json::value> body = {},
               const std::function<void(net::Request&)>& arrange = {});
    // The same without waiting for the answer; it comes with pass() or settle().
    std::shared_ptr<std::optional<Reply>> begin(net::Method method, std::string target,
                                                std::optional<boost::json::value> body = {});
    // The same without running the loop: for a request that comes in the middle of something.
    std::shared_ptr<std::optional<Reply>> send(net::Method method, std::string target,
                                               std::optional<boost::json::value> body = {},
                                               const std::function<void(net::Request&)>& arrange = {});
    Reply get(std::string target) { return call(net::Method::get, std::move(target)); }
    Reply post(std::string target, boost::json::value body = boost::json::object{}) {
        return call(net::Method::post, std::move(target), std::move(body));
    }

    // A reader of the event stream, which takes each event at once until the agent or the test ends it. `after`: the
    // event it saw last.
    std::shared_ptr<Watcher> watch(std::optional<std::uint64_t> after = {});

    // A GET without an identity at a TCP listener, as it answers there.
    Reply call_at(const std::string& address, const std::string& path);

    // An image named "tiny" of 1 GiB, in the cache.
    void add_image();
    // A VM "web" of it, running; its id.
    std::string create_vm(std::string name = "web");

    boost::asio::io_context loop{1};
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    test::Recorded logged;
    base::Log log = test::recording_log(logged, base::Level::info);
    fakes::MemoryFiles files;
    fakes::FakeProcesses processes{fakes::fake_qemu_img(files)};
    fakes::MemoryStore store;
    fakes::FakeWeb web;
    std::unique_ptr<fakes::FakeHypervisor> hypervisor;
    std::unique_ptr<fakes::MemoryServer> server;
    agent::Config config;
    std::string installation = "install";
    agent::ServiceManager service_manager;
    heartbeat::CoreLink* core = nullptr;
    std::vector<std::string> local_addresses;
    net::Client* tailscaled = nullptr;
    net::NetworkWatch* network = nullptr;
    std::function<std::unique_ptr<agent::GuestDialer>(const agent::VmIndex&)> make_dialer;
    agent::Ports* ports = nullptr;
    agent::Logind* logind = nullptr;
    std::unique_ptr<agent::App> app;

protected:
    // root's, over the socket.
    net::Request make_request(net::Method method, const std::string& target,
                              std::optional<boost::json::value> body) const;

private:
    Reply to_reply(const net::Response& response) const;
    heartbeat::Identity next_identity();

    std::uint64_t epoch_ = 0;
};

// {"name", "spec": {"image": "tiny", ...}}
[[nodiscard]] boost::json::object vm_body(std::string name, boost::json::object spec = {});

}  // namespace ghost::tests
