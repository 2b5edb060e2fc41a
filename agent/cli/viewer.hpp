// The VNC viewer of this desktop.
#pragma once

#include "base/error.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

// The command that shows a VNC server behind a Unix socket, of the first viewer that is installed; nullopt: none is.
[[nodiscard]] std::optional<std::vector<std::string>> viewer_command(
    const std::string& socket, const std::function<bool(std::string_view program)>& is_installed);

// The rest of the desktop, as a seam.
class Desktop {
public:
    virtual ~Desktop() = default;
    // There is a screen to show windows on.
    [[nodiscard]] virtual bool has_display() const = 0;
    [[nodiscard]] virtual bool is_installed(std::string_view program) const = 0;
    // Until it has ended; ends it when the caller is cancelled, which must have called throw_if_cancelled(false). Its
    // exit status, or 128 + signal. Errors: io_error, not_found.
    [[nodiscard]] virtual boost::asio::awaitable<base::Result<int>> run(std::vector<std::string> command) = 0;
    // A folder that is nobody else's. Errors: io_error.
    [[nodiscard]] virtual base::Result<std::string> make_private_folder() = 0;
    virtual void remove_folder(const std::string& path) noexcept = 0;
};

class ProcessDesktop final : public Desktop {
public:
    [[nodiscard]] bool has_display() const override;
    [[nodiscard]] bool is_installed(std::string_view program) const override;
    [[nodiscard]] boost::asio::awaitable<base::Result<int>> run(std::vector<std::string> command) override;
    [[nodiscard]] base::Result<std::string> make_private_folder() override;
    void remove_folder(const std::string& path) noexcept override;
};

// Where a program is, by the directories of PATH; nullopt: nowhere.
[[nodiscard]] std::optional<std::string> find_program(std::string_view name);

}  // namespace ghost::cli
