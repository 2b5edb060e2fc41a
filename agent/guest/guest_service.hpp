// Into the guests, through their agents: programs that are run there, files that
// are read and written. Only in VMs whose spec says guest_access, and every time
// it is told who did what.
#pragma once

#include "agent/guest/guest_places.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/context.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/task_group.hpp"
#include "net/http.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// What a GuestService works with; all of it outlives the service.
struct GuestParts {
    const VmIndex& index;
    virt::Hypervisor& hypervisor;
    OperationService& operations;
    base::Random& random;
    base::Log& log;
};

struct GuestProgram {
    std::vector<std::string> argv;         // not empty
    std::vector<std::string> environment;  // "NAME=value"; empty: the guest agent's own
    std::string input;                     // its standard input
    std::chrono::seconds limit{60};        // how long it is waited for
};

struct GuestUpload {
    std::string path;
    std::optional<unsigned> mode;  // of the new file; nullopt: 0644
    net::BodyReader body;
    std::optional<std::uint64_t> size;  // of it, when that is known
};

// What somebody did in a guest, when it is over.
struct GuestAccess {
    std::string vm;  // id
    std::string name;
    std::string action;  // "exec" | "file_read" | "file_write"
    std::string what;    // the program, or the path; shortened
    std::string by;
    std::string request_id;
    std::string operation = {};  // id, of a program
    std::string result = {};     // "succeeded", or the code of what it failed with
    std::optional<int> exit_code = {};
    std::optional<std::uint64_t> bytes = {};
};
[[nodiscard]] boost::json::object to_json(const GuestAccess& access);

// Loop thread only. Errors, and then nothing has happened in the guest: not_found (no such VM, or no such file),
// forbidden (others' VM; spec.guest_access is false; the guest's own rights), state_conflict (it doesn't run; no agent
// answers; the guest's words), overloaded, hypervisor_unavailable.
class GuestService {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;

    GuestService(const boost::asio::any_io_executor& executor, GuestParts parts, std::uint64_t max_file_size)
        : p_(parts), max_file_size_(max_file_size), closers_(executor, parts.log) {}
    ~GuestService() { *alive_ = false; }
    GuestService(const GuestService&) = delete;
    GuestService& operator=(const GuestService&) = delete;

    // Begins an operation that answers with {exit_code, truncated} and the texts stdout and stderr. Neither what the
    // program is given to read nor its environment is written down.
    [[nodiscard]] Task<OperationService::Ptr> exec(base::Context context, std::string vm, GuestProgram program);
    // Of an operation that a stop or a crash cut off: what became of the program isn't known.
    void recover(const Operation& operation);

    // The file's bytes. Its first piece has been read by then. A failure later, and a file that is larger than may be,
    // end the source with an exception.
    [[nodiscard]] Task<net::BodySource> read_file(base::Context context, std::string vm, std::string path);
    // Writes it beside and puts it in place when it is whole; else what was there stays. Also body_too_large,
    // insufficient_storage, and what the body's reader fails with.
    [[nodiscard]] Task<void> write_file(base::Context context, std::string vm, GuestUpload upload);

    // No handle is waited for to be closed any more.
    [[nodiscard]] boost::asio::awaitable<void> stop();

    // Whether guests can be reached at all.
    std::function<base::Result<void>()> ready = [] { return base::Result<void>{}; };
    std::function<void(const GuestAccess&)> on_access;

    static constexpr std::size_t max_output = 64 * 1024;  // of standard output and of standard error, each
    static constexpr std::size_t programs_each = 8;
    static constexpr std::size_t programs_all = 64;
    static constexpr std::size_t transfers_each = 4;
    static constexpr std::size_t transfers_all = 16;
    static constexpr std::size_t longest_told = 1024;  // bytes of a program or a path in log and events

private:
    class Reading;
    struct Upload;

    [[nodiscard]] base::Result<const Vm*> permitted(const std::string& ref, std::string_view verb) const;
    [[nodiscard]] base::Result<void> still_permitted(const std::string& id) const;
    void tell(GuestAccess access, const base::Result<void>& result) const;

    boost::asio::awaitable<Outcome> run(OperationControl& control, std::shared_ptr<const GuestProgram> program);
    boost::asio::awaitable<base::Result<void>> ask(std::string id, virt::GuestCommand command, virt::GuestRun& into);
    boost::asio::awaitable<Outcome> end_as_interrupted(OperationControl& control);
    [[nodiscard]] std::function<void()> telling(const Operation& operation, const Outcome& outcome) const;

    Task<void> write_apart(std::string id, GuestUpload upload, std::uint64_t& written);
    Task<void> pour(const Upload& into, GuestUpload from, std::uint64_t& written);
    Task<void> put_in_place(Upload upload, base::Result<void> poured);
    // What a program of the guest's comes to, once it has ended.
    boost::asio::awaitable<void> take_away(const Upload& upload);
    Task<virt::GuestRun> run_tool(std::string id, std::vector<std::string> argv, base::Duration limit);
    [[nodiscard]] static base::Result<void> ended_well(const base::Result<virt::GuestRun>& run);
    boost::asio::awaitable<void> close_handle(std::string id, std::int64_t handle, GuestPlaces::Place place);

    GuestParts p_;
    std::uint64_t max_file_size_;
    base::TaskGroup closers_;
    GuestPlaces programs_{"programs", programs_each, programs_all};
    GuestPlaces transfers_{"file transfers", transfers_each, transfers_all};
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Why a program that the agent was to run has no exit code.
[[nodiscard]] base::Error no_end_of(const virt::GuestRun& run, const std::string& name);

}  // namespace ghost::agent
