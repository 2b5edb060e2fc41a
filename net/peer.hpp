// Who is at the other end of a connection.
#pragma once

#include "base/context.hpp"

#include <openssl/types.h>

#include <sys/types.h>

#include <optional>
#include <string>

namespace ghost::net {

// By the credentials the kernel noted when the peer of Unix socket `fd` connected: its user, groups and supplementary
// groups. Root, the user the daemon runs as, and members of `admins` are admin.
[[nodiscard]] base::Principal socket_principal(int fd, std::optional<gid_t> admins);

// The subject's common name; nothing when there is none, or one with control characters.
[[nodiscard]] std::optional<std::string> common_name(const X509& certificate);
// The common name; the whole subject (RFC 2253) when there is none.
[[nodiscard]] std::string subject_name(const X509& certificate);

}  // namespace ghost::net
