// Sockets that listen, made with the care their kind needs.
#pragma once

#include "base/error.hpp"
#include "net/server.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

namespace ghost::net {

using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

// A Unix socket's name in the file system; removed with this object, unless it has become another's meanwhile.
class SocketFile {
public:
    SocketFile(std::string path, dev_t device, ino_t inode) : path_(std::move(path)), device_(device), inode_(inode) {}
    ~SocketFile();
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;

private:
    std::string path_;
    dev_t device_;
    ino_t inode_;
};

struct ListeningSocket {
    Acceptor acceptor;
    std::string address;                    // with the port that was bound
    std::unique_ptr<SocketFile> file = {};  // of a Unix socket
    std::optional<gid_t> admins = {};       // the group whose members are admin
    std::string warning = {};               // worth telling the operator
};

// Bound and listening, as Server::listen promises.
[[nodiscard]] base::Result<ListeningSocket> open_listening_socket(boost::asio::any_io_executor executor,
                                                                  const Endpoint& endpoint);

}  // namespace ghost::net
