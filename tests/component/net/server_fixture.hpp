// A server on loopback with its loop on a thread of its own, and the certificates its clients need.
#pragma once

#include "base/log.hpp"
#include "base/random.hpp"
#include "net/client.hpp"
#include "net/server.hpp"
#include "net/tls.hpp"
#include "tests/fakes/certificates.hpp"
#include "tests/fakes/scratch_folder.hpp"
#include "tests/unit/base/recording_sink.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace ghost::test {

// Short enough that a test that waits for one is quick, long enough for a loaded machine.
[[nodiscard]] net::ServerLimits small_limits();

// A CA, what it signs and what others sign, in files of one scratch folder.
class Certificates {
public:
    Certificates();
    [[nodiscard]] net::TlsFiles files(const std::string& name, const fakes::Identity& identity) const;
    [[nodiscard]] net::TlsContext server() const;
    // `name`: "" without a certificate.
    [[nodiscard]] net::TlsContext client(const std::string& name) const;

    fakes::ScratchFolder folder;
    fakes::CertificateAuthority ca{"test CA"};
    fakes::CertificateAuthority other_ca{"other CA"};
};
[[nodiscard]] Certificates& certificates();  // made once: keys take time

// Answers by path: /echo with the body, /who with the principal, /ids with the request's ids, /slow after `release`,
// /throw never, /large with 8 MiB, /close with close set, /stream with what `streamed` makes, /slow/stream with that
// after `release`, anything else with the path. With `handler` that answers it all.
class ServerFixture {
public:
    explicit ServerFixture(net::ServerLimits limits = small_limits());
    ~ServerFixture();
    ServerFixture(const ServerFixture&) = delete;
    ServerFixture& operator=(const ServerFixture&) = delete;

    std::uint16_t listen_tcp(net::TlsContext tls = nullptr);  // the port
    net::Server& operator*() { return *server_; }
    base::Result<std::shared_ptr<net::Listener>> listen(net::Endpoint endpoint, net::TlsContext tls = nullptr);
    void shut_down(std::chrono::milliseconds grace);
    std::size_t connections();

    // Runs `work` on the loop and waits for it.
    template <class Work>
    auto on_loop(Work work) {
        std::packaged_task<decltype(work())()> task{std::move(work)};
        auto result = task.get_future();
        boost::asio::post(context_, [&task] { task(); });
        return result.get();
    }
    template <class T>
    T await(boost::asio::awaitable<T> task);
    template <class T>
    std::future<T> start(boost::asio::awaitable<T> task, boost::asio::cancellation_slot slot);

    std::vector<std::string> refused;  // "GET 400"; read it on the loop
    std::atomic<int> slow_waiting{0};  // requests in /slow
    std::atomic<bool> release{false};  // lets them go on
    std::atomic<int> handled{0};
    std::function<net::BodySource()> streamed;  // set it before requests come
    net::Handler handler;                       // likewise

    // What was logged so far, from info on.
    std::vector<base::Record> logged();

private:
    boost::asio::awaitable<net::Response> answer(net::Request request);

    Recorded recorded_;
    base::Log log_ = recording_log(recorded_, base::Level::info);
    base::SystemRandom random_;
    boost::asio::io_context context_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
    std::unique_ptr<net::Server> server_;
    std::thread thread_;
};

// `condition` holds within a generous time.
template <class Condition>
bool eventually(Condition condition) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (!condition()) {
        if (std::chrono::steady_clock::now() > limit) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    return true;
}

[[nodiscard]] std::size_t open_descriptors();

}  // namespace ghost::test

template <class T>
T ghost::test::ServerFixture::await(boost::asio::awaitable<T> task) {
    return boost::asio::co_spawn(context_, std::move(task), boost::asio::use_future).get();
}

template <class T>
std::future<T> ghost::test::ServerFixture::start(boost::asio::awaitable<T> task, boost::asio::cancellation_slot slot) {
    return boost::asio::co_spawn(context_, std::move(task),
                                 boost::asio::bind_cancellation_slot(slot, boost::asio::use_future));
}
