// A loop, its time and a VM that runs, for the ways into it.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/log.hpp"
#include "base/task_group.hpp"
#include "fakes/fake_websocket.hpp"
#include "fakes/virtual_clock.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace ghost::test {

struct AccessScene {
    AccessScene() {
        agent::Vm vm;
        vm.id = "vm-1";
        vm.name = "web";
        vm.phase = agent::Phase::ready;
        vm.observed = seen(virt::Power::running);
        vms.put(std::move(vm));
    }
    ~AccessScene() {
        tasks.cancel();
        settle();
    }
    AccessScene(const AccessScene&) = delete;
    AccessScene& operator=(const AccessScene&) = delete;

    [[nodiscard]] agent::Observed seen(virt::Power power) const {
        agent::Observed observed;
        observed.present = true;
        observed.power = power;
        observed.at = clock.wall();
        return observed;
    }
    void set_power(virt::Power power) { vms.observe("vm-1", seen(power)); }

    // Until nothing is ready; time stands still.
    void settle() {
        loop.restart();
        while (loop.poll() > 0) loop.restart();
    }
    void pass(base::Duration span) {
        settle();
        clock.run_for(loop, span);
        settle();
    }
    // What it comes to, once it does.
    template <class T>
    std::shared_ptr<std::optional<T>> begin(boost::asio::awaitable<T> work) {
        auto result = std::make_shared<std::optional<T>>();
        boost::asio::co_spawn(loop, std::move(work), [result](const std::exception_ptr& fault, T value) {
            if (fault) std::rethrow_exception(fault);
            *result = std::move(value);
        });
        settle();
        return result;
    }
    std::unique_ptr<fakes::FakeWebSocket> client(std::string protocol = {}) {
        return std::make_unique<fakes::FakeWebSocket>(loop.get_executor(), std::move(protocol));
    }

    boost::asio::io_context loop{1};
    fakes::VirtualClock clock;
    base::Log log;
    agent::VmIndex vms{loop.get_executor(), clock, 1};
    base::TaskGroup tasks{loop.get_executor(), log};
};

}  // namespace ghost::test
