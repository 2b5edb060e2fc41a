// What the cache keeps and what goes: budget, reserve, chains, refresh.
#include "component/agent/world.hpp"
#include "net/digest.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

constexpr std::size_t mib = 1 << 20;
const std::string images = "/var/lib/ghost/images/";

// Images "a", "b", ... of a MiB each, on the web and in the catalogue.
struct Shop {
    explicit Shop(World& world) : w(world) {
        for (const char name : std::string{"abcd"}) offer(name, name);
    }
    void offer(char name, char version) {
        agent::CatalogueImage entry;
        entry.name = std::string{name};
        entry.architecture = "x86_64";
        entry.url = address(name);
        entry.checksums = address(name) + ".sum";
        w.config.images.catalogue.insert_or_assign(entry.name, entry);
        auto bytes = fakes::qcow2_bytes(1ULL << 30U);
        bytes.resize(mib, version);
        w.web.sites[entry.url] = {.bytes = bytes, .etag = std::string{"\""} + version + "\""};
        w.web.sites[entry.checksums].bytes = net::sha256_hex(bytes);
    }
    static std::string address(char name) { return std::string{"https://shop.example/"} + name + ".qcow2"; }
    [[nodiscard]] std::string blob(char name) const {
        return images + net::sha256_hex(w.web.sites.at(address(name)).bytes) + ".qcow2";
    }
    Reply add(char name) { return w.post("/v1/images?wait=60", {{"source", std::string{name}}}); }
    // One after the other, a minute apart.
    void add_all(const std::string& names) {
        for (const char name : names) {
            REQUIRE(add(name).status == 201);
            w.pass(1min);
        }
    }
    [[nodiscard]] std::string here() {
        std::string names;
        for (const auto& item : w.get("/v1/images").at("/items").as_array()) names += item.at("name").as_string();
        return names;
    }
    Reply make_vm(const std::string& name, char image) {
        return w.post("/v1/vms?wait=60", vm_body(name, {{"image", std::string{image}}, {"power", "off"}}));
    }

    World& w;
};

}  // namespace

TEST_CASE("a full cache gives up what was used longest ago and nobody refers to") {
    World world;
    Shop shop{world};
    world.config.images.cache_max = 3 * mib + mib / 2;
    world.boot();
    shop.add_all("abc");
    CHECK(shop.here() == "abc");
    SECTION("the eldest goes") {
        REQUIRE(shop.add('d').status == 201);
        CHECK(shop.here() == "bcd");
        CHECK_FALSE(world.files.exists(shop.blob('a')));
        CHECK_FALSE(world.store.images().contains("a"));
        // A name of the catalogue comes again when it is wanted.
        CHECK(shop.make_vm("web", 'a').status == 201);
        CHECK(shop.here() == "acd");
    }
    SECTION("a VM's stays, and its making is a use") {
        REQUIRE(shop.make_vm("web", 'a').status == 201);
        CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
        REQUIRE(shop.make_vm("web-2", 'b').status == 201);
        REQUIRE(shop.add('d').status == 201);
        CHECK(shop.here() == "abd");
    }
    SECTION("what a domain of others stands on stays, too") {
        virt::DomainInfo theirs;
        theirs.uuid = "0198aaaa-1111-7222-8333-444455556666";
        theirs.name = "theirs";
        theirs.disks = {{"vda", "", "/srv/theirs.qcow2", "qcow2", false}};
        world.files.put("/srv/theirs.qcow2", fakes::qcow2_bytes(1ULL << 30U, shop.blob('a'), "qcow2"));
        world.hypervisor->put(theirs);
        world.pass(5s);
        CHECK(world.call(net::Method::del, "/v1/images/a?wait=60").text("/code") == "state_conflict");
        REQUIRE(shop.add('d').status == 201);
        CHECK(shop.here() == "acd");
        CHECK(world.files.exists(shop.blob('a')));
    }
    SECTION("nothing goes when it wouldn't be enough") {
        for (const char name : std::string{"abc"})
            REQUIRE(shop.make_vm(std::string{"web-"} + name, name).status == 201);
        const auto full = shop.add('d');
        CHECK(full.status == 507);
        CHECK(full.at("/needed/disk_bytes").to_number<std::uint64_t>() >= mib);
        CHECK(shop.here() == "abc");
    }
}

TEST_CASE("images of local files aren't given up: nobody could bring them back") {
    World world;
    Shop shop{world};
    world.config.images.cache_max = 2 * mib;
    world.boot();
    auto bytes = fakes::qcow2_bytes(1ULL << 30U);
    bytes.resize(3 * mib / 2, 'x');
    world.files.put("/images/local.qcow2", bytes);
    REQUIRE(world.post("/v1/images?wait=60", {{"source", "file:///images/local.qcow2"}}).status == 201);
    CHECK(shop.add('a').status == 507);
    CHECK(world.get("/v1/images/local").status == 200);
}

TEST_CASE("an image larger than the cache may be is refused without a thing being given up") {
    World world;
    Shop shop{world};
    world.config.images.cache_max = 2 * mib;
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    world.web.sites[Shop::address('b')].bytes.resize(3 * mib, 'b');
    world.web.sites[Shop::address('b') + ".sum"].bytes = net::sha256_hex(world.web.sites[Shop::address('b')].bytes);
    CHECK(shop.add('b').status == 507);
    CHECK(shop.here() == "a");
}

TEST_CASE("several downloads that need room get it, one after the other") {
    World world;
    Shop shop{world};
    shop.offer('e', 'e');
    world.config.images.cache_max = 3 * mib + mib / 2;
    world.boot();
    shop.add_all("abc");
    const auto d = world.send(net::Method::post, "/v1/images?wait=60", json::object{{"source", "d"}});
    const auto e = world.send(net::Method::post, "/v1/images?wait=60", json::object{{"source", "e"}});
    world.pass(60s);
    REQUIRE((d->has_value() && e->has_value()));
    CHECK((*d)->status == 201);
    CHECK((*e)->status == 201);
    CHECK(shop.here() == "cde");
}

TEST_CASE("the cache is cut back when its budget or the owner's disk asks for it") {
    World world;
    Shop shop{world};
    world.boot();
    shop.add_all("abc");
    REQUIRE(shop.make_vm("web", 'a').status == 201);
    SECTION("a budget that was lowered") {
        world.shut_down();
        world.config.images.cache_max = 2 * mib + mib / 2;
        world.boot();
        world.pass(2min);
        CHECK(shop.here() == "ac");
    }
    SECTION("an owner who fills the disk") {
        const auto reserve = static_cast<std::uint64_t>(world.config.resources.reserved_disk_gb) << 30U;
        world.files.set_capacity(world.files.used() + reserve - mib / 2);
        world.pass(2min);
        CHECK(shop.here() == "ac");
        // As far as it goes: what VMs stand on stays.
        world.files.set_capacity(world.files.used() + reserve / 2);
        world.pass(2min);
        CHECK(shop.here() == "a");
    }
}

TEST_CASE("images that nobody uses give way to a VM, and a dry run says which") {
    World world;
    Shop shop{world};
    world.boot();
    shop.add_all("abc");
    const auto reserve = static_cast<std::uint64_t>(world.config.resources.reserved_disk_gb) << 30U;
    world.files.set_capacity(world.files.used() + reserve + (2ULL << 30U) - mib / 2);
    world.pass(20s);
    const auto body = [](int gib) { return vm_body("web", {{"image", "a"}, {"power", "off"}, {"disk_gib", gib}}); };
    const auto dry = world.post("/v1/vms?dry_run=true", body(2));
    INFO(json::serialize(dry.body));
    REQUIRE(dry.status == 200);
    CHECK(dry.text("/would/0").starts_with("delete the image b "));
    CHECK(shop.here() == "abc");
    SECTION("of a create") {
        CHECK(world.post("/v1/vms?wait=60", body(2)).status == 201);
        CHECK(shop.here() == "ac");
    }
    SECTION("of one that grows") {
        REQUIRE(world.post("/v1/vms?wait=60", body(1)).status == 201);
        CHECK(shop.here() == "abc");
        world.pass(20s);
        const json::object grown{{"spec", json::object{{"disk_gib", 2}}}};
        CHECK(world.call(net::Method::patch, "/v1/vms/web?wait=60", grown).status == 200);
        CHECK(shop.here() == "ac");
    }
    SECTION("but not when all of them wouldn't be enough") {
        CHECK(world.post("/v1/vms?wait=60", body(3)).status == 507);
        CHECK(shop.here() == "abc");
    }
}

TEST_CASE("after a start room is made once it is known what disks stand on") {
    World world;
    Shop shop{world};
    world.config.images.cache_max = mib + mib / 2;
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    world.web.before_piece = [&](std::string_view, std::uint64_t) -> boost::asio::awaitable<void> {
        co_await world.clock.sleep_for(10s);
    };
    const auto begun = world.post("/v1/images", {{"source", "b"}});
    world.crash();
    world.web.before_piece = {};
    world.before_boot = [](fakes::FakeHypervisor& hypervisor) { hypervisor.hang("domains"); };
    world.boot();
    world.pass(30s);
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "running");
    world.hypervisor->release("domains");
    world.pass(60s);
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "succeeded");
    CHECK(shop.here() == "b");
}

TEST_CASE("a cache on a file system of its own keeps to what that has") {
    World world;
    Shop shop{world};
    world.config.libvirt.image_cache = "/cache";
    world.files.mount("/cache", 2 * mib + mib / 2);
    world.boot();
    shop.add_all("ab");
    SECTION("what is longest unused goes") {
        REQUIRE(shop.add('c').status == 201);
        CHECK(shop.here() == "bc");
    }
    SECTION("and nothing goes, nor is anything written, when that wouldn't be enough") {
        world.web.sites[Shop::address('c')].bytes.resize(3 * mib, 'c');
        world.web.sites[Shop::address('c') + ".sum"].bytes = net::sha256_hex(world.web.sites[Shop::address('c')].bytes);
        const auto full = shop.add('c');
        CHECK(full.status == 507);
        CHECK(full.text("/detail").find("libvirt.image_cache") != std::string::npos);
        CHECK(full.at("/needed/disk_bytes").to_number<std::uint64_t>() == 3 * mib);
        CHECK(shop.here() == "ab");
    }
}

TEST_CASE("a prune says what would go, and takes it") {
    World world;
    Shop shop{world};
    world.boot();
    for (const char name : std::string{"abc"}) REQUIRE(shop.add(name).status == 201);
    REQUIRE(shop.make_vm("web", 'b').status == 201);
    world.files.put(images + ".download-0123456789abcdef.part", std::string(1000, 'x'));
    const auto dry = world.post("/v1/image-cache/prune?dry_run=true");
    CHECK(dry.status == 200);
    CHECK(dry.at("/would").as_array().size() == 3);
    CHECK(shop.here() == "abc");
    CHECK(world.post("/v1/image-cache/prune?wait=60").status == 200);
    CHECK(shop.here() == "b");
    CHECK_FALSE(world.files.exists(shop.blob('a')));
    CHECK_FALSE(world.files.exists(images + ".download-0123456789abcdef.part"));
}

TEST_CASE("a blob that a prune can't delete goes as soon as it can be") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    world.files.fail_change(1, base::Error{base::Errc::io_error, "no luck"});
    CHECK(world.post("/v1/image-cache/prune?wait=60").text("/code") == "io_error");
    CHECK(shop.here().empty());
    CHECK(world.files.exists(shop.blob('a')));
    world.pass(61min);
    CHECK_FALSE(world.files.exists(shop.blob('a')));
}

TEST_CASE("nothing goes while it isn't known what stands on it") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    virt::DomainInfo theirs;
    theirs.uuid = "0198aaaa-1111-7222-8333-444455556666";
    theirs.name = "theirs";
    theirs.disks = {{"vda", "", "/srv/unreadable.qcow2", "qcow2", false}};
    world.hypervisor->put(theirs);
    world.pass(5s);
    world.files.fail_paths("unreadable", {base::Errc::io_error, "stale file handle"});
    CHECK(world.post("/v1/image-cache/prune?wait=60").status == 500);
    CHECK(shop.here() == "a");
    world.files.fail_paths("", {});
}

TEST_CASE("whatever stands on a blob, in whatever way it is named, keeps it") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    const auto blob = shop.blob('a');
    const auto name = blob.substr(images.size());
    const auto put = [&world](const std::string& path, const std::string& backing,
                              const std::string& format = "qcow2") {
        world.files.put(path, fakes::qcow2_bytes(1ULL << 30U, backing, "qcow2"));
        virt::DomainInfo theirs;
        theirs.uuid = "0198aaaa-1111-7222-8333-444455556666";
        theirs.name = "theirs";
        theirs.disks = {{"vda", "", path, format, false}};
        world.hypervisor->put(theirs);
        world.pass(5s);
    };
    bool stays = true;
    SECTION("a disk that a domain runs with and isn't defined with") {
        world.files.put("/srv/live.qcow2", fakes::qcow2_bytes(1ULL << 30U, blob, "qcow2"));
        world.hypervisor->put_live_disk({"/srv/live.qcow2", "qcow2"});
    }
    SECTION("the cache's folder by another path") { put("/srv/theirs.qcow2", "/mnt/same/" + name); }
    SECTION("a link of another name") {
        world.files.put("/srv/link.qcow2", fakes::qcow2_bytes(1ULL << 30U));
        world.files.link("/srv/link.qcow2", blob);
        put("/srv/theirs.qcow2", "/srv/link.qcow2");
    }
    SECTION("as JSON") {
        put("/srv/theirs.qcow2", R"(json:{"driver":"qcow2","file":{"driver":"file","filename":")" + blob + R"("}})");
    }
    SECTION("two disks of the same name") {
        world.files.put("/srv/one/disk.qcow2", fakes::qcow2_bytes(1ULL << 30U));
        world.hypervisor->put_live_disk({"/srv/one/disk.qcow2", "qcow2"});
        put("/srv/two/disk.qcow2", blob);
    }
    SECTION("but not what a guest wrote into its raw disk") {
        put("/srv/theirs.raw", blob, "raw");
        stays = false;
    }
    CHECK(world.post("/v1/image-cache/prune?wait=60").status == 200);
    CHECK(world.files.exists(blob) == stays);
    CHECK(world.get("/v1/images/a").status == (stays ? 200U : 404U));
}

TEST_CASE("nothing goes while a qcow2's header doesn't tell, or the hypervisor doesn't") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    SECTION("a header of a version to come") {
        std::string head{"QFI\xfb\0\0\0\x09", 8};
        head.resize(200);
        world.files.put("/srv/newer.qcow2", head);
        world.hypervisor->put_live_disk({"/srv/newer.qcow2", "qcow2"});
        CHECK(world.post("/v1/image-cache/prune?wait=60").text("/detail").find("/srv/newer.qcow2") !=
              std::string::npos);
    }
    SECTION("a hypervisor that doesn't answer") {
        world.hypervisor->fail("disk_files", {base::Errc::hypervisor_error, "out of order"});
        CHECK(world.post("/v1/image-cache/prune?wait=60").status == 502);
    }
    CHECK(shop.here() == "a");
}

TEST_CASE("a refresh moves the name to a newer blob, and VMs keep theirs") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    const auto old_blob = shop.blob('a');
    REQUIRE(shop.make_vm("web", 'a').status == 201);

    CHECK(world.post("/v1/images/a/refresh?wait=60").text("/digest") == world.get("/v1/images/a").text("/digest"));
    CHECK(world.web.asked_for(Shop::address('a')) == 1);  // the list said that nothing is newer

    shop.offer('a', 'n');
    world.web.before_piece = [&](std::string_view, std::uint64_t at) -> boost::asio::awaitable<void> {
        if (at == 0) co_await world.clock.sleep_for(10s);
    };
    const auto refresh = world.post("/v1/images/a/refresh");
    REQUIRE(refresh.status == 202);
    CHECK(world.get("/v1/images/a").text("/state") == "available");
    CHECK(shop.make_vm("meanwhile", 'a').status == 201);
    world.pass(60s);
    CHECK(world.get("/v1/operations/" + refresh.text("/id")).text("/state") == "succeeded");
    CHECK(images + world.get("/v1/images/a").text("/digest").substr(7) + ".qcow2" == shop.blob('a'));
    CHECK(world.files.exists(old_blob));
    CHECK(world.files.exists(shop.blob('a')));
    CHECK(world.get("/v1/orphans").at("/items").as_array().empty());
    // It goes with the last that stands on it.
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    world.pass(1s);
    CHECK(world.files.exists(old_blob));
    CHECK(world.call(net::Method::del, "/v1/vms/meanwhile?wait=60").status == 200);
    world.pass(1s);
    CHECK_FALSE(world.files.exists(old_blob));
    CHECK(world.files.exists(shop.blob('a')));
}

TEST_CASE("a blob that a refresh left goes with its last VM, also when the name went before") {
    World world;
    Shop shop{world};
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    const auto old_blob = shop.blob('a');
    REQUIRE(shop.make_vm("web", 'a').status == 201);
    shop.offer('a', 'n');
    CHECK(world.post("/v1/images/a/refresh?wait=60").status == 200);
    CHECK(world.call(net::Method::del, "/v1/images/a?wait=60").status == 200);
    CHECK(world.files.exists(old_blob));
    CHECK_FALSE(world.files.exists(shop.blob('a')));
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    world.pass(1s);
    CHECK_FALSE(world.files.exists(old_blob));
}

TEST_CASE("a refresh that a crash cut off is gone on with, or leaves nothing") {
    for (int kept = 1; kept <= 5; ++kept) {
        CAPTURE(kept);
        World world;
        Shop shop{world};
        world.boot();
        REQUIRE(shop.add('a').status == 201);
        shop.offer('a', 'n');
        int commits = 0;
        world.store.on_commit([&](const storage::Changes&) {
            if (++commits == kept) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
        });
        const auto refresh = world.begin(net::Method::post, "/v1/images/a/refresh?wait=60");
        world.store.on_commit({});
        world.store.fail_always({});
        world.crash();
        world.boot();
        world.pass(61min);
        CHECK(images + world.get("/v1/images/a").text("/digest").substr(7) + ".qcow2" == shop.blob('a'));
        CHECK(world.files.files() == std::vector<std::string>{shop.blob('a')});
    }
}

TEST_CASE("an image of a local file can't be refreshed") {
    World world;
    world.boot();
    world.add_image();
    const auto refused = world.post("/v1/images/tiny/refresh?wait=60");
    CHECK(refused.status == 409);
    CHECK(refused.text("/code") == "state_conflict");
}

TEST_CASE("what is left of a download that nobody goes on with is kept for a week") {
    World world;
    Shop shop{world};
    world.boot();
    for (int i = 0; i < 200; ++i) world.web.sites[Shop::address('a')].faults.push_back({.cut_after = mib / 2});
    world.web.sites[Shop::address('a')].ranges = false;
    const auto add = world.begin(net::Method::post, "/v1/images?wait=300", json::object{{"source", "a"}});
    world.pass(1h);
    REQUIRE(add->has_value());
    CHECK((*add)->text("/code") == "source_unavailable");
    CHECK(world.get("/v1/images/a").status == 404);
    const auto parts = [&] {
        const auto files = world.files.files();
        return std::ranges::count_if(files, [](const auto& path) { return path.ends_with(".part"); });
    };
    CHECK(parts() == 1);
    world.pass(6 * 24h);
    CHECK(parts() == 1);
    world.pass(2 * 24h);
    CHECK(parts() == 0);
}

TEST_CASE("weekly, at a time of its own, the agent brings images of the catalogue up to date") {
    World world;
    Shop shop{world};
    world.config.images.refresh_weekly = true;
    world.boot();
    REQUIRE(shop.add('a').status == 201);
    shop.offer('a', 'n');
    const auto is_new = [&] {
        return images + world.get("/v1/images/a").text("/digest").substr(7) + ".qcow2" == shop.blob('a');
    };
    // Wherever in the week it is, a restart doesn't put it off.
    int days = 0;
    for (; days < 8 && !is_new(); ++days) {
        world.pass(24h);
        world.shut_down();
        world.boot();
    }
    CHECK(is_new());
    const auto by = world.get("/v1/operations?kind=image.refresh");
    CHECK(by.text("/items/0/requested_by").find("agent") != std::string::npos);
    // And again a week later.
    shop.offer('a', 'm');
    world.pass(5 * 24h);
    CHECK_FALSE(is_new());
    world.pass(4 * 24h);
    CHECK(is_new());

    World quiet;
    Shop other{quiet};
    quiet.boot();
    REQUIRE(other.add('a').status == 201);
    quiet.pass(15 * 24h);
    CHECK(quiet.get("/v1/operations?kind=image.refresh").at("/items").as_array().empty());
}
