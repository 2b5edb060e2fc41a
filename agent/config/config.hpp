// The configuration, typed and complete: every default stands here.
#pragma once

#include "agent/images/catalogue.hpp"
#include "base/log.hpp"
#include "virt/kvm_access.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace ghost::agent {

struct TlsConfig {
    std::string cert;
    std::string key;
    std::string ca;
    [[nodiscard]] bool complete() const noexcept { return !cert.empty() && !key.empty() && !ca.empty(); }
};

struct Config {
    struct {
        std::string name;     // empty: the host name
        std::string api_url;  // Ghost Core; empty: none
        std::chrono::milliseconds heartbeat_interval{30'000};
        std::string version;  // the seed's key; read, not used: the program knows its own
    } agent;
    struct {
        std::vector<std::string> listen_addr{"127.0.0.1:9092"};  // also "tailscale:9092"
        std::string socket = "/run/ghost/agent.sock";
        std::string socket_group = "ghost";
        TlsConfig tls;  // falls back to grpc.tls_*
    } api;
    struct {
        bool configured = false;  // a `grpc:` section was read
        std::string listen_addr = "127.0.0.1:9090";
        bool tls_enabled = true;
        TlsConfig tls;
    } grpc;
    struct {
        std::string uri = "qemu:///system";
        virt::VirtType virt_type = virt::VirtType::automatic;
        std::string storage_pool = "ghost";
        std::string network = "default";
        std::string image_cache;  // empty: <state_dir>/images
    } libvirt;
    struct {
        double reserved_cpu = 1;
        double reserved_ram_gb = 2;
        double reserved_disk_gb = 10;
        double cpu_overcommit = 4;
    } resources;
    struct {
        unsigned vcpus = 2;
        std::uint64_t memory_mib = 2048;
        std::uint64_t disk_gib = 20;
    } defaults;
    struct {
        std::vector<std::string> import_dirs;
        std::uint64_t cache_max = 0;           // bytes; 0: the disk's free space less the reserve
        std::uint64_t max_rate = 0;            // of downloads, bytes per second; 0: no limit
        bool allow_private_addresses = false;  // downloads from addresses that aren't public
        std::string tls_ca;                    // a CA for downloads beside the system's
        bool refresh_weekly = false;           // those of the catalogue, at a time of its own choice
        Catalogue catalogue;                   // of this machine's architecture, from images.d beside the file
    } images;
    struct {
        std::chrono::milliseconds idle_timeout = std::chrono::hours{4};  // of a stream or a forward's connection
        std::uint64_t per_identity = 256;                                // streams of one client at once
    } streams;
    struct {
        bool privileged_ports = false;  // whether a forward may have a port of this host below 1024
        bool all_addresses = false;     // and listen on "0.0.0.0"
    } forwards;
    struct {
        std::uint64_t max_file_size = 1ULL << 30;  // bytes of a file that is copied into or out of a guest
    } guest_access;
    struct {
        std::string enroll_token;  // a secret: never printed
        TlsConfig tls;             // Core's trust root is its own
    } core;
    struct {
        std::string socket = "/var/run/tailscale/tailscaled.sock";  // tailscaled's local API; empty: it isn't asked
    } tailscale;
    struct {
        base::Level level = base::Level::info;
        enum class Output : std::uint8_t { stdout_, file, both } output = Output::stdout_;
        std::string file = "/var/log/ghost/agent.log";
        base::LogFormat format = base::LogFormat::json;
        std::uint64_t max_size = 100ULL << 20;  // bytes
        std::chrono::hours max_age{24 * 28};
    } logging;
    struct {
        bool enabled = true;
        std::string listen_addr = "127.0.0.1:9091";
        std::string path = "/metrics";
    } metrics;
    struct {
        std::string listen_addr;  // empty or equal to the API's: shares its listener
        std::string path = "/health";
    } health;
    std::string state_dir = "/var/lib/ghost";

    // Settings read but not acted on by this version, as sentences for the log.
    std::vector<std::string> notes;
};

}  // namespace ghost::agent
