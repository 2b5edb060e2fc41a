// A running operation: its control, as its work sees it.
#pragma once

#include "agent/operations/operation_service.hpp"

#include <boost/asio/cancellation_signal.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace ghost::agent {

class OperationService::Live final : public OperationControl, public std::enable_shared_from_this<Live> {
public:
    Live(OperationService& service, std::shared_ptr<Operation> op)
        : owner(service), operation_(std::move(op)), turn(service.executor_), ended(service.executor_) {}

    [[nodiscard]] boost::asio::awaitable<base::Result<void>> begin_step(std::string name) override;
    [[nodiscard]] const StepRecord* step_before(std::string_view name) const override;
    [[nodiscard]] boost::asio::awaitable<void> begin_undo(base::Error why) override;
    void phase(std::string name) override;
    void progress(std::uint64_t done, std::uint64_t total, std::string_view unit) override;
    [[nodiscard]] std::function<void()> stalled() override;
    void let_others_pass() override;
    [[nodiscard]] boost::asio::awaitable<bool> wait_to_retry(base::Error why, base::Duration pause) override;
    [[nodiscard]] bool cancel_requested() const override { return operation_->cancel_requested; }
    [[nodiscard]] bool stopping() const override { return owner.stopping_; }
    [[nodiscard]] const Operation& operation() const override { return *operation_; }
    void no_more_cancel() override;
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> cancellable(
        boost::asio::awaitable<base::Result<void>> step) override;
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> abortable(boost::asio::awaitable<base::Result<void>> step,
                                                                       Abort abort) override;

    void cancel();
    // "vm.create.define.after": the last step is behind us.
    void pass_last_step() const;

    OperationService& owner;
    std::shared_ptr<Operation> operation_;
    std::vector<StepRecord> before_crash;  // of an operation that is gone on with: what the journal told
    bool admitted = false;
    bool ending = false;     // its end is being written: nothing older may be written after it
    bool lets_pass = false;  // waits for a guest, and needs no place among those that run
    base::Notifier turn;     // woken when it is admitted
    boost::asio::cancellation_signal stop_step;
    base::Notifier ended;

private:
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> journal();
    [[nodiscard]] boost::asio::awaitable<void> keep_aborting(Abort abort, std::shared_ptr<bool> step_ended);

    std::pair<base::Instant, std::uint64_t> rate_from_{};
};

}  // namespace ghost::agent
