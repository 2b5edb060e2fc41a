#include "agent/access/stream_service.hpp"

#include "agent/access/console_log.hpp"
#include "agent/access/socket_end.hpp"

#include <fmt/format.h>

#include <sys/socket.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
using base::Errc;

// One that is open.
struct StreamService::Stream {
    StreamKind kind = StreamKind::console;
    std::shared_ptr<FarEnd> far = {};
    std::string vm = {};  // id
    std::string name = {};
    std::uint16_t port = 0;
    base::Context context = {};
    bool ends_itself = false;  // with the VM

    [[nodiscard]] base::Fields fields() const {
        base::Fields fields{{"kind", name_of(kind)}, {"vm", vm}, {"name", name}};
        if (port != 0) fields.emplace_back("port", port);
        fields.emplace_back("by", context.who.text());
        fields.emplace_back("request_id", context.request_id);
        return fields;
    }
};

StreamService::StreamService(Ground ground, base::Duration idle_timeout)
    : g_(std::move(ground)),
      idle_timeout_(idle_timeout),
      tickets_(g_.clock, g_.random),
      tasks_(g_.executor, g_.log),
      consoles_({g_.executor, g_.vms, g_.files, g_.clock, tasks_,
                 [this](std::string vm) { return open_line(std::move(vm)); },
                 [this](std::string vm, WindowSize size) { return tell_window(std::move(vm), size); }}),
      screenshots_(g_.executor, g_.hypervisor, g_.files, g_.clock, tasks_) {}

base::Result<const Vm*> StreamService::managed(std::string_view vm) const {
    const auto* const found = g_.vms.find_ref(vm);
    if (found == nullptr) return base::fail(Errc::not_found, fmt::format("no VM {}", vm));
    if (!found->managed)
        return base::fail(Errc::forbidden, fmt::format("{} isn't managed by this agent; adopt it first", found->name));
    return found;
}

base::Result<const Vm*> StreamService::running(std::string_view vm) const {
    auto found = managed(vm);
    if (!found || is_running(**found)) return found;
    const auto state = virt::name_of((*found)->observed.power);
    base::Error error{Errc::state_conflict, fmt::format("{} is {}; start it first", (*found)->name, state)};
    error.facts["state"] = state;
    return base::fail(std::move(error));
}

base::Result<const Vm*> StreamService::open_to(std::string_view vm) const {
    if (closed_) return base::fail(Errc::draining, "the agent is stopping");
    return running(vm);
}

StreamService::Task<StreamService::Serve> StreamService::console(base::Context context, std::string vm,
                                                                 ConsoleWish wish) {
    const auto found = open_to(vm);
    if (!found) co_return base::fail(found.error());
    const auto& at = **found;
    Stream stream{.kind = StreamKind::console, .vm = at.id, .name = at.name, .context = std::move(context)};
    stream.ends_itself = true;
    const ConsoleHub::Reader reader{stream.context.who.text(), wish.force, wish.read_only};
    auto seat = co_await consoles_.join(stream.vm, reader);
    if (!seat) co_return base::fail(std::move(seat).error());
    stream.far = *std::move(seat);
    co_return serving(std::move(stream));
}

StreamService::Task<StreamService::Serve> StreamService::display(base::Context context, std::string vm) {
    const auto found = open_to(vm);
    if (!found) co_return base::fail(found.error());
    const auto& at = **found;
    Stream stream{.kind = StreamKind::vnc, .vm = at.id, .name = at.name, .context = std::move(context)};
    auto descriptor = co_await g_.hypervisor.open_display(stream.vm);
    if (!descriptor) co_return base::fail(std::move(descriptor).error());
    net::StreamSocket socket{g_.executor};
    boost::system::error_code error;
    socket.assign({AF_UNIX, 0}, descriptor->get(), error);
    if (error)
        co_return base::fail(Errc::source_unavailable, fmt::format("the display can't be read: {}", error.message()));
    (void)descriptor->release();
    stream.far = std::make_shared<SocketEnd>(
        std::move(socket), g_.clock, SocketEnd::Manner{.peer = "the display's server", .patience = display_patience});
    co_return serving(std::move(stream));
}

StreamService::Task<StreamService::Serve> StreamService::forward(base::Context context, std::string vm,
                                                                 std::uint16_t port) {
    const auto found = open_to(vm);
    if (!found) co_return base::fail(found.error());
    const auto& at = **found;
    if (g_.dialer == nullptr) co_return base::fail(Errc::source_unavailable, "this agent can't connect to guests");
    Stream stream{
        .kind = StreamKind::forward, .vm = at.id, .name = at.name, .port = port, .context = std::move(context)};
    auto socket = co_await g_.dialer->connect(place_of(at), port, g_.clock.now() + dialling);
    if (!socket) co_return base::fail(std::move(socket).error());
    stream.far = std::make_shared<SocketEnd>(*std::move(socket), g_.clock,
                                             SocketEnd::Manner{.peer = "the guest", .half_close = true});
    co_return serving(std::move(stream));
}

StreamService::Serve StreamService::serving(Stream stream) {
    // No coroutine itself: what it starts owns the stream.
    return [this, shared = std::make_shared<Stream>(std::move(stream))](net::WebSocket& client) {
        return serve(shared, client);
    };
}

asio::awaitable<void> StreamService::serve(std::shared_ptr<Stream> stream, net::WebSocket& client) {
    auto& figures = figures_of(stream->kind);
    Figures own;
    Relay::Terms terms{.events = client.protocol() == protocol, .idle = idle_timeout_};
    if (!stream->ends_itself) terms.vm = stream->vm;
    terms.from_client = [&](std::size_t bytes) {
        own.from_clients += bytes;
        figures.from_clients += bytes;
    };
    terms.to_client = [&](std::size_t bytes) {
        own.to_clients += bytes;
        figures.to_clients += bytes;
    };
    Relay relay{g_.executor, client, *stream->far, g_.vms, g_.clock, std::move(terms)};

    // Told of also when it is cut off.
    struct Open {
        StreamService& of;
        Figures& figures;
        const Figures& own;
        const Stream& stream;
        std::list<Relay*>::iterator place;
        base::Instant since;
        Ending ending{Ending::finished, "it was cut off"};

        ~Open() {
            --figures.open;
            of.relays_.erase(place);
            auto fields = stream.fields();
            fields.emplace_back("bytes_in", own.from_clients);
            fields.emplace_back("bytes_out", own.to_clients);
            const auto lasted = std::chrono::duration_cast<std::chrono::seconds>(of.g_.clock.now() - since);
            fields.emplace_back("seconds", lasted.count());
            fields.emplace_back("reason", ending.reason);
            of.g_.log.info("stream ended", std::move(fields));
        }
    };
    ++figures.open;
    Open open{*this, figures, own, *stream, relays_.insert(relays_.end(), &relay), g_.clock.now()};
    g_.log.info("stream begins", stream->fields());
    if (closed_) relay.stop();
    open.ending = co_await relay.run();
}

StreamService::Task<std::shared_ptr<ConsoleLine>> StreamService::open_line(std::string vm) {
    auto device = co_await g_.hypervisor.console(vm);
    if (!device) co_return base::fail(std::move(device).error());
    const auto still_its = [this, &vm, path = device->path]() -> asio::awaitable<bool> {
        const auto now = co_await g_.hypervisor.console(vm);
        co_return now && now->path == path;
    };
    co_return co_await open_console_line(g_.executor, *std::move(device), g_.files, still_its);
}

// A serial line carries no size, so the guest's own agent sets it, where programs may be run.
asio::awaitable<void> StreamService::tell_window(std::string vm, WindowSize size) {
    const auto* const found = g_.vms.find(vm);
    if (found == nullptr || !is_running(*found) || !found->spec.guest_access) co_return;
    const auto* const line = g_.hypervisor.link().host.architecture == "aarch64" ? "/dev/ttyAMA0" : "/dev/ttyS0";
    virt::GuestCommand command{
        .argv = {"stty", "-F", line, "rows", std::to_string(size.rows), "columns", std::to_string(size.columns)},
        .limit = window_patience};
    const auto done = co_await g_.hypervisor.run_in_guest(vm, std::move(command));
    if (!done) g_.log.debug("the guest wasn't told of the window's size", {{"vm", vm}, {"error", done.error().detail}});
}

StreamService::Task<std::shared_ptr<const Screenshot>> StreamService::screenshot(std::string vm) {
    const auto found = open_to(vm);
    if (!found) co_return base::fail(found.error());
    co_return co_await screenshots_.of((*found)->id);
}

StreamService::Task<std::string> StreamService::console_log(std::string vm, std::size_t bytes) {
    const auto found = managed(vm);
    if (!found) co_return base::fail(found.error());
    const auto name = (*found)->name;
    const auto path = (*found)->plan.console_log;
    auto none = base::fail(Errc::not_found, fmt::format("{} has no console log", name));
    if (path.empty()) co_return none;
    auto text = co_await read_console_log(g_.files, path, bytes);
    if (!text && text.error().code == Errc::not_found) co_return none;
    co_return text;
}

base::Result<Tickets::Issued> StreamService::issue(const base::Principal& who, std::string_view vm, StreamKind kind,
                                                   std::uint16_t port) {
    const auto found = managed(vm);
    if (!found) return base::fail(found.error());
    return tickets_.issue(who, {(*found)->id, kind, port});
}

base::Result<base::Principal> StreamService::redeem(std::string_view ticket, std::string_view vm, StreamKind kind,
                                                    std::uint16_t port) {
    const auto* const found = g_.vms.find_ref(vm);
    return tickets_.redeem(ticket, {found == nullptr ? "" : found->id, kind, port});
}

void StreamService::close() {
    closed_ = true;
    for (auto* const relay : relays_) relay->stop();
    consoles_.end({Ending::agent_stops, "the agent is stopping"});
}

asio::awaitable<void> StreamService::drain() {
    tasks_.cancel();
    co_await tasks_.drain();
}

}  // namespace ghost::agent
