// Every key of the configuration, once: its path in the file, where it lives in
// Config, and what may stand there. Reading, printing, the search for unknown
// keys and the test of the packaged agent.yaml all walk this list.
#pragma once

#include "agent/config/config.hpp"
#include "agent/vm/vm_limits.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

namespace ghost::agent::keys {

struct Text {
    bool required = false;  // an empty value is a fault
    bool secret = false;    // not shown, neither printed nor in a fault
};
struct AbsolutePath {
    bool required = false;
};
struct Paths {};    // a list of absolute paths
struct UrlPath {};  // "/metrics"
struct Listen {     // "127.0.0.1:9091"
    bool required = true;
};
struct ListenList {};  // one or several; also "tailscale:9092"
struct Flag {};
struct Number {
    double min = 0;
    double max = 1e9;
};
struct Whole {
    std::uint64_t min = 0;
    std::uint64_t max = 0;
};
struct Size {
    std::uint64_t bare = 0;  // the unit of a number without one, bytes; 0: it needs one
    std::uint64_t min = 0;   // bytes
};
struct Span {
    std::chrono::milliseconds bare{0};  // the unit of a number without one; 0: it needs one
    std::chrono::milliseconds min{0};
    std::chrono::milliseconds max{0};
};
template <class E, std::size_t n>
struct Choice {
    std::array<std::pair<std::string_view, E>, n> words;
};

// `C` is Config or const Config; `visit(path, member, rule)` is called for every key, section by section.
template <class C, class Visitor>
void each_key(C& c, Visitor&& visit) {
    using namespace std::chrono_literals;
    using Output = decltype(c.logging.output);
    constexpr std::uint64_t mib = 1ULL << 20;
    static constexpr Choice<base::Level, 4> levels{{{{"debug", base::Level::debug},
                                                     {"info", base::Level::info},
                                                     {"warn", base::Level::warn},
                                                     {"error", base::Level::error}}}};
    static constexpr Choice<std::remove_const_t<Output>, 3> outputs{
        {{{"stdout", Output::stdout_}, {"file", Output::file}, {"both", Output::both}}}};
    static constexpr Choice<base::LogFormat, 2> formats{
        {{{"json", base::LogFormat::json}, {"text", base::LogFormat::text}}}};

    static constexpr Choice<virt::VirtType, 3> virt_types{
        {{{"auto", virt::VirtType::automatic}, {"kvm", virt::VirtType::kvm}, {"qemu", virt::VirtType::qemu}}}};

    static constexpr Choice<bool, 2> refreshes{{{{"never", false}, {"weekly", true}}}};

    visit("state_dir", c.state_dir, AbsolutePath{.required = true});

    visit("agent.name", c.agent.name, Text{});
    visit("agent.api_url", c.agent.api_url, Text{});
    visit("agent.heartbeat_interval", c.agent.heartbeat_interval, Span{.bare = 1s, .min = 1s, .max = 1h});
    visit("agent.version", c.agent.version, Text{});

    visit("api.listen_addr", c.api.listen_addr, ListenList{});
    visit("api.socket", c.api.socket, AbsolutePath{.required = true});
    visit("api.socket_group", c.api.socket_group, Text{.required = true});
    visit("api.tls_cert", c.api.tls.cert, AbsolutePath{});
    visit("api.tls_key", c.api.tls.key, AbsolutePath{});
    visit("api.tls_ca", c.api.tls.ca, AbsolutePath{});

    visit("libvirt.uri", c.libvirt.uri, Text{.required = true});
    visit("libvirt.virt_type", c.libvirt.virt_type, virt_types);
    visit("libvirt.storage_pool", c.libvirt.storage_pool, Text{.required = true});
    visit("libvirt.network", c.libvirt.network, Text{.required = true});
    visit("libvirt.image_cache", c.libvirt.image_cache, AbsolutePath{});

    visit("resources.reserved_cpu", c.resources.reserved_cpu, Number{});
    visit("resources.reserved_ram_gb", c.resources.reserved_ram_gb, Number{});
    visit("resources.reserved_disk_gb", c.resources.reserved_disk_gb, Number{});
    visit("resources.cpu_overcommit", c.resources.cpu_overcommit, Number{.min = 0.1, .max = 1000});

    visit("defaults.vcpus", c.defaults.vcpus, Whole{.min = 1, .max = max_vcpus});
    visit("defaults.memory_mib", c.defaults.memory_mib, Whole{.min = min_memory_mib, .max = max_memory_mib});
    visit("defaults.disk_gib", c.defaults.disk_gib, Whole{.min = 1, .max = max_disk_gib});

    visit("images.import_dirs", c.images.import_dirs, Paths{});
    visit("images.cache_max", c.images.cache_max, Size{});
    visit("images.max_rate", c.images.max_rate, Size{});
    visit("images.allow_private_addresses", c.images.allow_private_addresses, Flag{});
    visit("images.tls_ca", c.images.tls_ca, AbsolutePath{});
    visit("images.refresh", c.images.refresh_weekly, refreshes);

    visit("streams.idle_timeout", c.streams.idle_timeout, Span{.bare = 1s, .min = 1s, .max = 24h * 365});
    visit("streams.per_identity", c.streams.per_identity, Whole{.min = 1, .max = 65536});

    visit("forwards.privileged_ports", c.forwards.privileged_ports, Flag{});
    visit("forwards.all_addresses", c.forwards.all_addresses, Flag{});

    visit("guest_access.max_file_size", c.guest_access.max_file_size, Size{.min = 1});

    visit("tailscale.socket", c.tailscale.socket, AbsolutePath{});

    visit("logging.level", c.logging.level, levels);
    visit("logging.output", c.logging.output, outputs);
    visit("logging.file", c.logging.file, AbsolutePath{.required = true});
    visit("logging.format", c.logging.format, formats);
    visit("logging.max_size", c.logging.max_size, Size{.bare = mib, .min = 1024});
    visit("logging.max_age", c.logging.max_age, Span{.bare = 24h, .min = 1h, .max = 24h * 36500});

    visit("metrics.enabled", c.metrics.enabled, Flag{});
    visit("metrics.listen_addr", c.metrics.listen_addr, Listen{});
    visit("metrics.path", c.metrics.path, UrlPath{});

    visit("health.listen_addr", c.health.listen_addr, Listen{.required = false});
    visit("health.path", c.health.path, UrlPath{});

    visit("core.enroll_token", c.core.enroll_token, Text{.secret = true});
    visit("core.tls_cert", c.core.tls.cert, AbsolutePath{});
    visit("core.tls_key", c.core.tls.key, AbsolutePath{});
    visit("core.tls_ca", c.core.tls.ca, AbsolutePath{});

    visit("grpc.listen_addr", c.grpc.listen_addr, Text{.required = true});
    visit("grpc.tls_enabled", c.grpc.tls_enabled, Flag{});
    visit("grpc.tls_cert", c.grpc.tls.cert, AbsolutePath{});
    visit("grpc.tls_key", c.grpc.tls.key, AbsolutePath{});
    visit("grpc.tls_ca", c.grpc.tls.ca, AbsolutePath{});
}

}  // namespace ghost::agent::keys
