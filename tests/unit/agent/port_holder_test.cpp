#include "agent/forwards/port_holder.hpp"

#include "fakes/scratch_folder.hpp"

#include <boost/asio/ip/address.hpp>
#include <catch2/catch.hpp>

#include <unistd.h>

#include <bit>
#include <filesystem>
#include <string>

using namespace ghost;
using agent::Protocol;

namespace {

// A /proc with these sockets.
struct Proc {
    Proc() {
        std::filesystem::create_directories(folder.path("net"));
        for (const auto* const table : {"tcp", "tcp6", "udp", "udp6"}) write(table, "");
    }
    void write(const std::string& table, const std::string& lines) const {
        folder.write("net/" + table, "  sl  local_address rem_address   st tx_queue rx_queue ...\n" + lines);
    }
    // A process that has the socket with this inode.
    void process(const std::string& pid, const std::string& name, const std::string& inode) const {
        std::filesystem::create_directories(folder.path(pid + "/fd"));
        folder.write(pid + "/comm", name + "\n");
        std::filesystem::create_symlink("/dev/null", folder.path(pid + "/fd/0"));
        std::filesystem::create_symlink("socket:[" + inode + "]", folder.path(pid + "/fd/3"));
    }
    [[nodiscard]] std::string holder(Protocol protocol, const char* address, std::uint16_t port) const {
        return agent::port_holder(protocol, boost::asio::ip::make_address(address), port, folder.path());
    }
    fakes::ScratchFolder folder;
};

std::string line(const std::string& local, const char* state, const std::string& inode, const char* user = "33") {
    return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000    " + user +
           "        0 " + inode + " 1 0000000000000000 100 0 0 10 0\n";
}

}  // namespace

TEST_CASE("who has a port is named by its socket") {
    if (std::endian::native != std::endian::little) return;  // the tables are written as the machine has its numbers
    const Proc proc;
    proc.write("tcp", line("0100007F:1F91", "0A", "41") + line("0100007F:1F90", "01", "42") +
                          line("0100007F:1F90", "0A", "43") + line("00000000:0050", "0A", "44", "0"));
    proc.write("tcp6", line("00000000000000000000000000000000:1F92", "0A", "45") +
                           line("0000000000000000FFFF00000100007F:1F93", "0A", "46"));
    proc.write("udp", line("0100007F:0035", "07", "47"));
    proc.process("100", "nginx", "43");
    proc.process("200", "six", "45");
    proc.process("300", "map ped\x1b", "46");
    proc.process("400", "dnsmasq", "47");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.1", 8080) == "nginx (pid 100)");
    CHECK(proc.holder(Protocol::tcp, "0.0.0.0", 8080) == "nginx (pid 100)");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.2", 8080) == "another program");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.1", 8082) == "six (pid 200)");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.1", 8083) == "map?ped? (pid 300)");
    CHECK(proc.holder(Protocol::udp, "127.0.0.1", 53) == "dnsmasq (pid 400)");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.1", 53) == "another program");
    CHECK(proc.holder(Protocol::tcp, "100.64.0.7", 80) == "a program of the user root");
}

TEST_CASE("tables that make no sense name nobody") {
    const Proc proc;
    proc.write("tcp", "nonsense\n\n 0: 0100007F 1 0A\n 0: ZZ00007F:1F90 0:0 0A 0:0 0:0 0 0 0 43 1\n" +
                          line("01:1F90", "0A", "43") + line("0100007F:11F90", "0A", "43"));
    proc.process("100", "nginx", "43");
    CHECK(proc.holder(Protocol::tcp, "127.0.0.1", 8080) == "another program");
    CHECK(agent::port_holder(Protocol::tcp, boost::asio::ip::make_address("127.0.0.1"), 1, "/nowhere") ==
          "another program");
}
