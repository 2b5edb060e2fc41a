#include "net/peer.hpp"

#include "net/text.hpp"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <vector>

namespace ghost::net {
namespace {

constexpr std::size_t group_limit = 65'536;  // NGROUPS_MAX

std::vector<gid_t> supplementary_groups(int fd) {
    std::vector<gid_t> groups(64);
    while (true) {
        auto size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
        if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) {
            groups.resize(size / sizeof(gid_t));
            return groups;
        }
        if (errno != ERANGE || groups.size() > group_limit) return {};
        groups.resize(std::max(groups.size() * 2, size / sizeof(gid_t)));
    }
}

bool presentable(std::string_view text) {
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
    return !text.empty() && std::ranges::none_of(text, control) && is_utf8(text);
}

}  // namespace

base::Principal socket_principal(int fd, std::optional<gid_t> admins) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return {};
    bool admin = peer.uid == 0 || peer.uid == ::geteuid();
    if (!admin && admins) {
        const auto groups = supplementary_groups(fd);
        admin = peer.gid == *admins || std::ranges::find(groups, *admins) != groups.end();
    }
    return {base::Principal::Kind::socket, "uid:" + std::to_string(peer.uid), admin};
}

std::optional<std::string> common_name(const X509& certificate) {
    const X509_NAME* subject = X509_get_subject_name(&certificate);
    const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (index < 0) return std::nullopt;
    unsigned char* text = nullptr;
    const int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    if (length < 0) return std::nullopt;
    std::string name(text, text + length);
    OPENSSL_free(text);
    if (!presentable(name)) return std::nullopt;
    return name;
}

std::string subject_name(const X509& certificate) {
    if (auto name = common_name(certificate)) return *std::move(name);
    const X509_NAME* subject = X509_get_subject_name(&certificate);
    const std::unique_ptr<BIO, decltype(&BIO_free)> out{BIO_new(BIO_s_mem()), &BIO_free};
    if (!out || X509_NAME_print_ex(out.get(), subject, 0, XN_FLAG_RFC2253) < 0) return {};
    char* text = nullptr;
    const long length = BIO_get_mem_data(out.get(), &text);
    return length > 0 ? std::string(text, static_cast<std::size_t>(length)) : std::string{};
}

}  // namespace ghost::net
