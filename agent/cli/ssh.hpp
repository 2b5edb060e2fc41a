// How ssh is told the way to a VM, and by which keys to know it. No I/O.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/invocation.hpp"

#include <boost/json/object.hpp>

#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

// `word` as one word of a shell, whichever: what a shell could take for more has a backslash in front. Not for words
// with line breaks.
[[nodiscard]] std::string shell_word(std::string_view word);
// `words` as a command that ssh runs through a shell (ProxyCommand), with % as ssh's %%.
[[nodiscard]] std::string proxy_command(const std::vector<std::string>& words);
// `words` as a command that ssh splits itself (KnownHostsCommand), or as names of files in its configuration.
[[nodiscard]] std::string plain_command(const std::vector<std::string>& words);

// The host keys of the VM's guest, as far as the agent has read them and they have the form of keys.
[[nodiscard]] std::vector<std::string> host_keys_of(const boost::json::object& vm);
// Lines of a known_hosts file, for the name that ssh_command() gives the host.
[[nodiscard]] std::string known_hosts_lines(const boost::json::object& vm);

// The words to run. `vm` is what the agent says of it. Fails for words that ssh can't be told.
[[nodiscard]] std::expected<std::vector<std::string>, Failure> ssh_command(const StartSsh& action,
                                                                           const boost::json::object& vm);

}  // namespace ghost::cli
