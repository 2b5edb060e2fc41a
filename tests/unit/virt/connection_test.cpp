#include "virt/connection.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace ghost;
using base::Errc;

TEST_CASE("libvirt's errors are told apart by who reported them and what") {
    CHECK(virt::errc_of(VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR) == Errc::hypervisor_unavailable);  // keep-alive
    CHECK(virt::errc_of(VIR_FROM_RPC, VIR_ERR_SYSTEM_ERROR) == Errc::hypervisor_unavailable);    // end of file
    CHECK(virt::errc_of(VIR_FROM_RPC, VIR_ERR_RPC) == Errc::hypervisor_error);                   // too large
    CHECK(virt::errc_of(VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR) == Errc::hypervisor_error);
    CHECK(virt::errc_of(VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN) == Errc::not_found);
    CHECK(virt::errc_of(VIR_FROM_NETWORK, VIR_ERR_NO_NETWORK) == Errc::not_found);
    CHECK(virt::errc_of(VIR_FROM_QEMU, VIR_ERR_DOM_EXIST) == Errc::already_exists);
    CHECK(virt::errc_of(VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID) == Errc::state_conflict);
    CHECK(virt::errc_of(VIR_FROM_QEMU, VIR_ERR_OPERATION_TIMEOUT) == Errc::state_conflict);
    CHECK(virt::errc_of(VIR_FROM_NONE, VIR_ERR_NO_CONNECT) == Errc::hypervisor_unavailable);
}

TEST_CASE("a failed call's error carries libvirt's words after ours") {
    virt::Connection connection{"test:///default", {}};
    const auto handle = connection.get(1);
    REQUIRE(handle);
    const virt::DomainPtr missing{virDomainLookupByName(*handle, "nobody")};
    REQUIRE_FALSE(missing);
    const auto error = virt::last_error("cannot find nobody");
    CHECK(error.code == Errc::not_found);
    CHECK(error.detail.starts_with("cannot find nobody: "));
    CHECK(error.detail.size() > std::string{"cannot find nobody: "}.size());

    virResetLastError();
    CHECK(virt::last_error().code == Errc::hypervisor_error);
    CHECK_FALSE(virt::last_error().detail.empty());
}

TEST_CASE("a connection is opened when first needed and again for each new link") {
    int opened = 0;
    virt::ConnectOptions options;
    options.open = [&opened](const std::string& uri) {
        ++opened;
        return virConnectOpen(uri.c_str());
    };
    virt::Connection connection{"test:///default", options};
    CHECK(opened == 0);
    CHECK_FALSE(connection.lost());
    REQUIRE(connection.get(1));
    REQUIRE(connection.get(1));
    CHECK(opened == 1);
    CHECK_FALSE(connection.lost());

    int closings = 0;
    connection.watch([](std::string) {}, [&closings](virConnectPtr open) { closings += open != nullptr ? 1 : 0; });
    REQUIRE(connection.get(2));
    CHECK(opened == 2);
    CHECK(closings == 1);
    connection.close();
    CHECK(closings == 1);  // the second wasn't watched
}

TEST_CASE("a daemon that isn't there makes the hypervisor unavailable, whatever libvirt calls it") {
    virt::Connection connection{"test+unix:///default?socket=/nonexistent/libvirt-sock", {}};
    const auto handle = connection.get(1);
    REQUIRE_FALSE(handle);
    CHECK(handle.error().code == Errc::hypervisor_unavailable);
    CHECK(handle.error().detail.starts_with("cannot connect to libvirt: "));
    CHECK_FALSE(connection.lost());
}
