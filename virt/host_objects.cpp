#include "virt/host_objects.hpp"

#include "virt/connection.hpp"
#include "virt/xml_text.hpp"

#include <boost/asio/ip/address_v4.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <span>
#include <sstream>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;

constexpr unsigned narrowest_everything = 8;  // 0.0.0.0/0, and the halves a VPN sets, are no claim

std::uint32_t mask_of(unsigned prefix) noexcept { return prefix == 0 ? 0 : ~std::uint32_t{0} << (32 - prefix); }

Subnet subnet_of(std::uint32_t address, unsigned prefix) noexcept { return {address & mask_of(prefix), prefix}; }

std::optional<std::uint32_t> parse_address(const char* text) {
    boost::system::error_code failed;
    const auto address = boost::asio::ip::make_address_v4(text, failed);
    return failed ? std::nullopt : std::optional{static_cast<std::uint32_t>(address.to_uint())};
}

std::string address_text(std::uint32_t address) { return boost::asio::ip::address_v4{address}.to_string(); }

// ---- Networks

std::string network_xml_of(virNetworkPtr network) {
    const CharPtr xml{virNetworkGetXMLDesc(network, 0)};
    return xml ? xml.get() : std::string{};
}

// Of every network but `except`: whether active or not, its range will be wanted.
Result<std::vector<Claim>> claims_of_networks(virConnectPtr connection, std::string_view except) {
    virNetworkPtr* list = nullptr;
    const int count = virConnectListAllNetworks(connection, &list, 0);
    if (count < 0) return base::fail(last_error("cannot list networks"));
    const std::unique_ptr<virNetworkPtr, FreeMalloced> owner{list};
    std::vector<Claim> claims;
    for (auto* const network : std::span{list, static_cast<std::size_t>(count)}) {
        const NetworkPtr held{network};
        if (virNetworkGetName(network) == except) continue;
        std::ranges::move(network_claims(network_xml_of(network)), std::back_inserter(claims));
    }
    return claims;
}

std::vector<Claim> claims_of_routes(const std::string& route_file) {
    std::ifstream file{route_file};
    std::stringstream text;
    text << file.rdbuf();
    return route_claims(text.str());
}

Result<void> start_network(virNetworkPtr network, const std::string& name, const std::string& route_file) {
    if (virNetworkIsActive(network) == 1 || virNetworkCreate(network) == 0) return {};
    auto error = last_error("cannot start network " + name);
    if (virNetworkIsActive(network) == 1) return {};  // somebody else was faster
    const auto routes = claims_of_routes(route_file);
    for (const auto& own : network_claims(network_xml_of(network)))
        if (const auto* clash = clash_with(own.subnet, routes))
            return base::fail(Errc::state_conflict, fmt::format("network {} wants {}, which {} ({}) already uses", name,
                                                                own.subnet.text(), clash->by, clash->subnet.text()));
    return base::fail(std::move(error));
}

Result<NetworkPtr> define_default(virConnectPtr connection, const std::string& name, const std::string& route_file) {
    auto claims = claims_of_networks(connection, name);
    if (!claims) return std::unexpected{std::move(claims.error())};
    std::ranges::move(claims_of_routes(route_file), std::back_inserter(*claims));
    const auto candidates = default_subnets();
    const auto subnet = first_free(candidates, *claims);
    if (!subnet) {
        const auto* clash = clash_with(candidates.front(), *claims);
        return base::fail(
            Errc::state_conflict,
            fmt::format("no address range is free for network {}: {} is used by {} ({}), and so are all "
                        "up to {}",
                        name, candidates.front().text(), clash->by, clash->subnet.text(), candidates.back().text()));
    }
    NetworkPtr network{virNetworkDefineXML(connection, nat_network_xml(name, *subnet).c_str())};
    if (!network) {
        auto error = last_error("cannot define network " + name);
        network.reset(virNetworkLookupByName(connection, name.c_str()));
        if (!network) return base::fail(std::move(error));
    }
    if (virNetworkSetAutostart(network.get(), 1) < 0)
        return base::fail(last_error("cannot make network " + name + " start with the host"));
    return network;
}

// ---- Pools

Result<PoolInfo> describe_pool(virStoragePoolPtr pool, const std::string& name) {
    const CharPtr xml{virStoragePoolGetXMLDesc(pool, 0)};
    if (!xml) return base::fail(last_error("cannot read storage pool " + name));
    pugi::xml_document document;
    if (auto loaded = load(document, xml.get(), "pool"); !loaded) return std::unexpected{std::move(loaded.error())};
    const auto root = document.document_element();
    constexpr std::array<std::string_view, 3> of_files{"dir", "fs", "netfs"};
    const std::string_view type = root.attribute("type").value();
    if (std::ranges::find(of_files, type) == of_files.end())
        return base::fail(Errc::state_conflict, fmt::format("storage pool {} is of type {}, not one of files (dir, fs "
                                                            "or netfs)",
                                                            name, type));
    return PoolInfo{name, root.child("target").child("path").text().get()};
}

Result<StoragePoolPtr> define_pool(virConnectPtr connection, const std::string& name, const std::string& path) {
    if (!is_xml_text(name) || !is_xml_text(path))
        return base::fail(Errc::validation_failed, "a storage pool's name or path has characters XML can't carry");
    StoragePoolPtr pool{virStoragePoolDefineXML(connection, directory_pool_xml(name, path).c_str(), 0)};
    if (!pool) {
        auto error = last_error("cannot define storage pool " + name + " at " + path);
        // "Storage source conflict with pool": another pool has that directory.
        if (virGetLastErrorCode() == VIR_ERR_OPERATION_FAILED) error.code = Errc::state_conflict;
        pool.reset(virStoragePoolLookupByName(connection, name.c_str()));
        if (!pool) return base::fail(std::move(error));
    }
    if (virStoragePoolSetAutostart(pool.get(), 1) < 0)
        return base::fail(last_error("cannot make storage pool " + name + " start with the host"));
    return pool;
}

// `build`: makes the directory first; one that is there stays as it is.
Result<void> start_pool(virStoragePoolPtr pool, const std::string& name, bool build) {
    if (virStoragePoolIsActive(pool) == 1) return {};
    if ((!build || virStoragePoolBuild(pool, VIR_STORAGE_POOL_BUILD_NEW) == 0) && virStoragePoolCreate(pool, 0) == 0)
        return {};
    auto error = last_error("cannot start storage pool " + name);
    if (virStoragePoolIsActive(pool) == 1) return {};  // somebody else was faster
    return base::fail(std::move(error));
}

}  // namespace

bool Subnet::overlaps(const Subnet& other) const noexcept {
    const auto mask = mask_of(std::min(prefix, other.prefix));
    return (address & mask) == (other.address & mask);
}

std::string Subnet::text() const { return fmt::format("{}/{}", address_text(address), prefix); }

std::vector<Claim> route_claims(std::string_view proc_net_route) {
    std::vector<Claim> claims;
    std::istringstream lines{std::string{proc_net_route}};
    std::string line;
    std::getline(lines, line);  // the heading
    while (std::getline(lines, line)) {
        // Iface Destination Gateway Flags RefCnt Use Metric Mask ...; addresses as the kernel's memory has them.
        std::istringstream fields{line};
        std::string interface, skipped;
        std::uint32_t destination = 0;
        std::uint32_t mask = 0;
        fields >> interface >> std::hex >> destination >> skipped >> skipped >> skipped >> skipped >> skipped >> mask;
        if (!fields) continue;
        if constexpr (std::endian::native == std::endian::little) {
            destination = __builtin_bswap32(destination);
            mask = __builtin_bswap32(mask);
        }
        const auto prefix = static_cast<unsigned>(std::popcount(mask));
        if (prefix >= narrowest_everything)
            claims.push_back({subnet_of(destination, prefix), "a route on " + interface});
    }
    return claims;
}

std::vector<Claim> network_claims(std::string_view network_xml) {
    std::vector<Claim> claims;
    pugi::xml_document document;
    if (!load(document, network_xml, "network")) return claims;
    const auto root = document.document_element();
    for (const auto ip : root.children("ip")) {
        if (std::string_view{ip.attribute("family").as_string("ipv4")} != "ipv4") continue;
        const auto address = parse_address(ip.attribute("address").value());
        if (!address) continue;
        auto prefix = ip.attribute("prefix").as_uint();
        if (const auto mask = parse_address(ip.attribute("netmask").value()))
            prefix = static_cast<unsigned>(std::popcount(*mask));
        if (prefix == 0 || prefix > 32) continue;
        claims.push_back({subnet_of(*address, prefix), std::string{"network "} + root.child("name").text().get()});
    }
    return claims;
}

const Claim* clash_with(const Subnet& subnet, const std::vector<Claim>& claims) noexcept {
    const auto it =
        std::ranges::find_if(claims, [&subnet](const Claim& claim) { return claim.subnet.overlaps(subnet); });
    return it == claims.end() ? nullptr : &*it;
}

std::vector<Subnet> default_subnets() {
    std::vector<Subnet> subnets;
    for (std::uint32_t third = 122; third <= 139; ++third)
        subnets.push_back({(192U << 24U) | (168U << 16U) | (third << 8U), 24});
    return subnets;
}

std::optional<Subnet> first_free(const std::vector<Subnet>& candidates, const std::vector<Claim>& claims) {
    for (const auto& candidate : candidates)
        if (clash_with(candidate, claims) == nullptr) return candidate;
    return std::nullopt;
}

std::string nat_network_xml(const std::string& name, const Subnet& subnet) {
    pugi::xml_document document;
    auto network = document.append_child("network");
    append_text(network, "name", name);
    with(network.append_child("forward"), "mode", "nat");
    with(with(network.append_child("bridge"), "stp", "on"), "delay", "0");
    auto ip = with(network.append_child("ip"), "address", address_text(subnet.address + 1));
    with(ip, "netmask", address_text(mask_of(subnet.prefix)));
    const auto broadcast = subnet.address | ~mask_of(subnet.prefix);
    with(with(ip.append_child("dhcp").append_child("range"), "start", address_text(subnet.address + 2)), "end",
         address_text(broadcast - 1));
    return to_string(document);
}

std::string directory_pool_xml(const std::string& name, const std::string& path) {
    pugi::xml_document document;
    auto pool = with(document.append_child("pool"), "type", "dir");
    append_text(pool, "name", name);
    append_text(pool.append_child("target"), "path", path);
    return to_string(document);
}

Result<NetworkInfo> ensure_network(virConnectPtr connection, const std::string& name, const std::string& route_file) {
    NetworkPtr network{virNetworkLookupByName(connection, name.c_str())};
    if (!network) {
        auto error = last_error();
        if (error.code != Errc::not_found) return base::fail(std::move(error));
        if (name != "default") return base::fail(Errc::not_found, "no network is named " + name);
        auto made = define_default(connection, name, route_file);
        if (!made) return std::unexpected{std::move(made.error())};
        network = std::move(*made);
    }
    if (auto started = start_network(network.get(), name, route_file); !started)
        return std::unexpected{std::move(started.error())};
    const CharPtr bridge{virNetworkGetBridgeName(network.get())};  // a network of macvtap devices has none
    return NetworkInfo{name, true, bridge ? bridge.get() : std::string{}};
}

Result<PoolInfo> ensure_pool(virConnectPtr connection, const std::string& name, const std::string& create_at) {
    StoragePoolPtr pool{virStoragePoolLookupByName(connection, name.c_str())};
    if (!pool) {
        auto error = last_error();
        if (error.code != Errc::not_found) return base::fail(std::move(error));
        if (create_at.empty()) return base::fail(Errc::not_found, "no storage pool is named " + name);
        auto made = define_pool(connection, name, create_at);
        if (!made) return std::unexpected{std::move(made.error())};
        pool = std::move(*made);
    }
    if (auto started = start_pool(pool.get(), name, !create_at.empty()); !started)
        return std::unexpected{std::move(started.error())};
    return describe_pool(pool.get(), name);
}

}  // namespace ghost::virt
