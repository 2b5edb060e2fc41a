// What changes are answered with: the operation, or what became of it.
#pragma once

#include "agent/images/image_service.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/context.hpp"
#include "net/http.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace ghost::agent::api {

// A resource as it is now.
struct Shown {
    boost::json::object resource = {};
    std::string etag = {};  // empty: it has none
};

// All of it outlives the answers.
struct Answers {
    OperationService& operations;
    const VmIndex& vms;
    const ImageService& images;
    const base::Clock& clock;
    std::function<boost::json::object()> agent;  // the resource at /v1

    [[nodiscard]] boost::json::object show(const Vm& vm) const;
    // What the operation made or changed; nullopt: it is gone, or that is what was asked for, or what it answers with
    // stands in itself.
    [[nodiscard]] std::optional<Shown> result_of(const Operation& operation) const;

    // 202 and the operation, or, when `wait` is over zero, what became of it: the resource (201 for a create), the
    // operation (delete), its problem, or the operation as it stands when the time is up. Of a dry run: what it would
    // come to.
    [[nodiscard]] boost::asio::awaitable<net::Response> accepted(base::Result<OperationService::Ptr> begun,
                                                                 std::chrono::seconds wait,
                                                                 base::Context context) const;
    // Of a change that takes no body, which `begin` begins.
    using Begin = std::function<boost::asio::awaitable<base::Result<OperationService::Ptr>>(const net::Request&)>;
    [[nodiscard]] boost::asio::awaitable<net::Response> change(net::Request request, Begin begin) const;
    // However the operation ends, the cancel was done: that it succeeded first, or failed, is told by the operation.
    [[nodiscard]] boost::asio::awaitable<net::Response> cancelled(OperationService::Ptr operation,
                                                                  std::chrono::seconds wait) const;
};

}  // namespace ghost::agent::api
