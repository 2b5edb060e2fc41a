#include "tests/fakes/core_server.hpp"

#include "base/ids.hpp"
#include "net/problem.hpp"
#include "net/tls.hpp"
#include "net/transport.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ssl/verify_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <openssl/x509.h>

#include <sys/stat.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace ghost::fakes {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr auto* names = "DNS:localhost,IP:127.0.0.1,IP:::1";
constexpr long ten_years_s = 10L * 365 * 24 * 3600;

std::string read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream{path, std::ios::binary}.rdbuf();
    return text.str();
}

net::Response shown(const json::value& value, unsigned status = 200) {
    return {.status = status, .body = json::serialize(value) + "\n"};
}

net::Response invalid(std::string_view detail) {
    return net::problem(422, "validation_failed", "Validation failed", detail, {});
}

std::optional<json::object> object_of(const net::Request& request) {
    boost::system::error_code error;
    auto value = json::parse(request.body, error);
    if (error || !value.is_object()) return std::nullopt;
    return std::move(value.get_object());
}

}  // namespace

CoreServer::CoreServer(asio::any_io_executor executor, base::Clock& clock, base::Random& random, base::Log& log,
                       Options options)
    : executor_(std::move(executor)),
      clock_(clock),
      log_(log),
      options_(std::move(options)),
      core_(
          clock, random, [this](const auto& csr, const auto& id, auto lifetime) { return issue(csr, id, lifetime); },
          options_.core) {
    const Identity kept{read(options_.dir + "/ca.crt"), read(options_.dir + "/ca.key")};
    // The time as a serial number: what an earlier start signed has smaller ones.
    authority_ = kept.key.empty() ? std::make_unique<CertificateAuthority>("Ghost Core stand-in")
                                  : std::make_unique<CertificateAuthority>(kept, std::time(nullptr));
    CertificateAuthority other{"another CA"};
    write_identity("ca", authority_->kept());
    const auto server = [](const char* alternative_names) {
        return Subject{
            .common_name = "fake-core", .alternative_names = alternative_names, .valid_until_s = ten_years_s};
    };
    write_identity("own", authority_->issue(server(names)));
    write_identity("other_ca", other.issue(server(names)));
    write_identity("other_name", authority_->issue(server("DNS:elsewhere.invalid")));
    core_.settings.ca = authority_->certificate();

    const net::RequestIds ids{[&clock, &random] { return base::make_uuid(clock, random); },
                              [&random] { return base::make_traceparent(random); }};
    net::ServerLimits limits;
    limits.body_bytes = 8UL * 1024 * 1024;  // what is over the contract's, Core refuses itself
    limits.idle = 10min;
    shared_ = std::make_shared<net::ServerCore>(limits, log, ids);
    page_server_ = net::make_http_server(executor_, net::ServerLimits{}, log, ids);
    add_pages();
}

CoreServer::~CoreServer() = default;

void CoreServer::write(const std::string& name, const std::string& text) const {
    const auto path = options_.dir + "/" + name;
    // Made anew, so that the mode is ours.
    std::remove(path.c_str());
    const auto before = ::umask(0077);
    std::ofstream file{path, std::ios::binary};
    ::umask(before);
    if (!(file << text << std::flush)) throw std::runtime_error{"cannot write " + path};
}

void CoreServer::write_identity(const std::string& name, const Identity& identity) const {
    write(name + ".crt", identity.certificate);
    write(name + ".key", identity.key);
}

std::optional<FakeCore::Issued> CoreServer::issue(const std::string& csr, const std::string& agent_id,
                                                  std::chrono::seconds lifetime) {
    auto certificate =
        authority_->sign(csr, {.common_name = agent_id, .valid_from_s = 0, .valid_until_s = lifetime.count()});
    if (!certificate) return std::nullopt;
    return FakeCore::Issued{*std::move(certificate), clock_.wall() + lifetime};
}

base::Result<void> CoreServer::start() {
    for (const auto* endpoint : {&options_.listen, &options_.page}) {
        if (!net::is_loopback(*endpoint))
            return base::fail(base::Errc::validation_failed, net::to_string(*endpoint) + " is not on loopback");
    }
    auto page = page_server_->listen(options_.page, nullptr,
                                     [this](net::Request request) { return show_page(std::move(request)); });
    if (!page) return base::fail(page.error());
    page_address_ = (*page)->address();
    auto socket = net::open_listening_socket(executor_, options_.listen);
    if (!socket) return base::fail(socket.error());
    address_ = socket->address;
    acceptor_.emplace(std::move(socket->acceptor));
    accepting_ = true;
    asio::co_spawn(executor_, accept_all(), asio::detached);
    return {};
}

// For one connection, so that its verification can tell the connection what it saw.
net::TlsContext CoreServer::context_for(const std::shared_ptr<Connection>& connection) const {
    const auto name = options_.dir + "/" + std::string{shown_name()};
    auto context = net::make_server_tls({name + ".crt", name + ".key", ca_file()});
    if (!context) throw std::runtime_error{context.error().detail};
    (*context)->set_verify_callback(
        [weak = std::weak_ptr{connection}](bool valid, asio::ssl::verify_context& verified) {
            auto* store = verified.native_handle();
            const auto self = weak.lock();
            if (valid || !self) return valid;
            if (X509_STORE_CTX_get_error(store) != X509_V_ERR_CERT_HAS_EXPIRED ||
                X509_STORE_CTX_get_error_depth(store) != 0)
                return false;
            X509_STORE_CTX_set_error(store, X509_V_OK);
            self->expired = true;
            return true;
        });
    return *std::move(context);
}

asio::awaitable<void> CoreServer::accept_all() {
    while (true) {
        auto [error, socket] = co_await acceptor_->async_accept(quiet);
        if (!acceptor_->is_open()) break;
        if (error) {
            static_cast<void>(co_await clock_.sleep_for(100ms));
            continue;
        }
        begin(std::move(socket));
    }
    accepting_ = false;
}

void CoreServer::begin(net::StreamSocket socket) {
    auto connection = std::make_shared<Connection>();
    auto transport = net::make_server_transport(std::move(socket), context_for(connection));
    const std::weak_ptr weak{connection};
    connection->session.emplace(shared_, std::move(transport),
                                std::make_shared<const net::Handler>(
                                    [this, weak](net::Request request) { return answer(std::move(request), weak); }),
                                base::Principal{}, "an agent");
    const auto it = connections_.insert(connections_.end(), connection);
    asio::co_spawn(executor_, connection->session->run(),
                   asio::bind_cancellation_slot(connection->stop.slot(), [this, it](const std::exception_ptr& error) {
                       const auto ended = *it;
                       connections_.erase(it);
                       if (error && !ended->session->aborted()) log_.error("a connection ended by an exception");
                   }));
}

asio::awaitable<net::Response> CoreServer::answer(net::Request request, std::weak_ptr<Connection> weak) {
    const auto connection = weak.lock();
    if (!connection) throw std::logic_error{"a request without its connection"};
    const auto& who = request.context.who;
    const FakeCore::Caller caller{
        .certificate = who.kind == base::Principal::Kind::certificate ? who.name : std::string{},
        .expired = connection->expired};
    auto served = core_.serve(request, caller);
    if (served.delay > base::Duration::zero()) static_cast<void>(co_await clock_.sleep_for(served.delay));
    if (!served.response) {
        connection->session->abort();
        co_return net::Response{.status = 503};  // goes nowhere
    }
    if (served.cut_after) {
        // As the first piece of a longer body, after which the connection ends.
        const auto piece = std::make_shared<const std::string>(served.response->body.substr(0, *served.cut_after));
        served.response->stream = [weak, piece, sent = false]() mutable -> asio::awaitable<net::Chunk> {
            if (!std::exchange(sent, true)) co_return piece;
            if (const auto self = weak.lock()) self->session->abort();
            co_return nullptr;
        };
    }
    co_return *std::move(served.response);
}

void CoreServer::drop_connections() {
    for (auto it = connections_.begin(); it != connections_.end();) {
        // One that ends at once takes itself off the list.
        const auto connection = *it++;
        connection->session->abort();
        connection->stop.emit(asio::cancellation_type::terminal);
    }
}

asio::awaitable<void> CoreServer::stop() {
    boost::system::error_code ignored;
    if (acceptor_) acceptor_->close(ignored);
    drop_connections();
    co_await page_server_->shut_down(0ms);
    while (accepting_ || !connections_.empty()) static_cast<void>(co_await clock_.sleep_for(5ms));
}

std::string_view CoreServer::shown_name() const noexcept {
    switch (shown_) {
        case Shown::other_ca: return "other_ca";
        case Shown::other_name: return "other_name";
        default: return "own";
    }
}

// ---- for people ----

// Ends with a newline, for a terminal.
asio::awaitable<net::Response> CoreServer::show_page(net::Request request) {
    auto response = co_await pages_.serve(std::move(request));
    if (!response.body.empty() && !response.body.ends_with('\n')) response.body += '\n';
    co_return response;
}

json::object CoreServer::faults() const {
    auto told = to_json(core_.faults);
    told["certificate"] = shown_name();
    return told;
}

void CoreServer::add_pages() {
    const auto add = [this](net::Method method, const char* path, auto serve) {
        pages_.add(method, path,
                   [serve](net::Request request) -> asio::awaitable<net::Response> { co_return serve(request); });
    };
    add(net::Method::get, "/", [this](const net::Request&) {
        auto page = core_.page();
        page["url"] = url();
        json::array routes;
        for (const auto& route : FakeCore::routes())
            routes.emplace_back(std::string{net::name_of(route.method)} + " " + route.pattern);
        page["routes"] = std::move(routes);
        page["faults"] = faults();
        return shown(page);
    });
    add(net::Method::post, "/commands", [this](const net::Request& request) { return queue(request); });
    add(net::Method::get, "/commands", [this](const net::Request&) { return shown(core_.page().at("commands")); });
    add(net::Method::get, "/commands/{id}", [this](const net::Request& request) {
        const auto* command = core_.command(request.params.at("id"));
        if (command == nullptr) return net::problem(404, "not_found", "Not found", "There is no such command", {});
        return shown(fakes::show(*command));
    });
    add(net::Method::get, "/faults", [this](const net::Request&) { return shown(faults()); });
    add(net::Method::post, "/faults", [this](const net::Request& request) { return set_faults(request); });
    add(net::Method::post, "/tokens", [this](const net::Request& request) { return add_token(request); });
}

net::Response CoreServer::queue(const net::Request& request) {
    auto command = object_of(request);
    if (!command) return invalid("A command is a JSON object");
    std::string agent_id;
    if (const auto* named = command->if_contains("agent_id")) {
        if (!named->is_string()) return invalid("agent_id is a string");
        agent_id = std::string{named->get_string()};
        command->erase("agent_id");
    } else if (core_.agents().size() == 1) {
        agent_id = core_.agents().begin()->first;
    } else {
        return invalid("agent_id must be given unless there is one agent");
    }
    if (const auto* kind = command->if_contains("kind"); kind == nullptr || !kind->is_string())
        return invalid("kind must be a string");
    try {
        return shown(json::object{{"id", core_.queue(agent_id, *std::move(command))}}, 201);
    } catch (const std::invalid_argument& error) {
        return invalid(error.what());
    }
}

net::Response CoreServer::set_faults(const net::Request& request) {
    auto document = object_of(request);
    if (!document) return invalid("Faults are a JSON object");
    auto which = shown_;
    if (const auto* named = document->if_contains("certificate")) {
        if (*named == "own")
            which = Shown::own;
        else if (*named == "other_ca")
            which = Shown::other_ca;
        else if (*named == "other_name")
            which = Shown::other_name;
        else
            return invalid("certificate: must be own, other_ca or other_name");
        document->erase("certificate");
    }
    const auto wanted = read_faults(*document, core_.faults);
    if (!wanted) return invalid(wanted.error().detail);
    core_.faults = *wanted;
    // Who is connected would go on without noticing.
    if (std::exchange(shown_, which) != which) drop_connections();
    return shown(faults());
}

net::Response CoreServer::add_token(const net::Request& request) {
    const auto document = object_of(request);
    const auto* token = document && document->size() == 1 ? document->if_contains("token") : nullptr;
    if (token == nullptr || !token->is_string() || token->get_string().empty() || token->get_string().size() > 256)
        return invalid("A token is {\"token\": \"...\"}, of 1 to 256 bytes");
    core_.settings.tokens.emplace(token->get_string());
    return shown(json::object{{"token", *token}}, 201);
}

}  // namespace ghost::fakes
