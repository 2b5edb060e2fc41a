// Images from the web and from the catalogue: fetched once for all who wait, proven, gone on with after a crash.
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

constexpr auto url = "https://a.example/debian.qcow2";
constexpr auto sums = "https://a.example/SHA256SUMS";
const std::string images = "/var/lib/ghost/images/";

// A catalogue of one, "debian", with a list of checksums.
struct Vendor {
    explicit Vendor(World& world) : w(world) {
        agent::CatalogueImage entry;
        entry.name = "debian";
        entry.description = "Debian";
        entry.architecture = "x86_64";
        entry.url = url;
        entry.checksums = sums;
        w.config.images.catalogue.emplace("debian", entry);
        publish(1);
    }
    // Another image under the same address.
    void publish(char version, std::size_t size = 256 * 1024) {
        bytes = fakes::qcow2_bytes(1ULL << 30U) + std::string(size, version);
        auto& site = w.web.sites[url];
        site.bytes = bytes;
        site.etag = std::string{"\""} + version + "\"";
        w.web.sites[sums].bytes = net::sha256_hex(bytes) + "  debian.qcow2\n";
    }
    [[nodiscard]] std::string blob() const { return images + net::sha256_hex(bytes) + ".qcow2"; }
    void hold() {
        w.web.before_piece = [this](std::string_view, std::uint64_t at) -> boost::asio::awaitable<void> {
            // Time is what lets it go on.
            if (at >= 64 * 1024) co_await w.clock.sleep_for(10s);
        };
    }

    World& w;
    std::string bytes;
};

std::size_t temporaries(const World& world) {
    const auto files = world.files.files();
    return static_cast<std::size_t>(std::ranges::count_if(
        files, [](const std::string& path) { return path.find("images/.") != std::string::npos; }));
}

json::object debian_vm(const std::string& name) { return vm_body(name, {{"image", "debian"}}); }

}  // namespace

TEST_CASE("a VM of an image that the catalogue names fetches it first") {
    World world;
    Vendor vendor{world};
    world.boot();
    const auto made = world.post("/v1/vms?wait=60", debian_vm("web"));
    INFO(json::serialize(made.body));
    REQUIRE(made.status == 201);
    const auto image = world.get("/v1/images/debian");
    CHECK(image.text("/state") == "available");
    CHECK(image.text("/verified") == "checksum");
    CHECK(image.text("/source") == "debian");
    CHECK(image.text("/used_by/0") == made.text("/id"));
    CHECK(world.files.exists(vendor.blob()));
    CHECK(temporaries(world) == 0);
    // The second finds it there.
    CHECK(world.post("/v1/vms?wait=60", debian_vm("web-2")).status == 201);
    CHECK(world.web.asked_for(url) == 1);
}

TEST_CASE("twenty VMs made at once of an image that isn't there share one download") {
    World world;
    Vendor vendor{world};
    vendor.hold();
    world.boot();
    std::vector<std::shared_ptr<std::optional<Reply>>> replies;
    for (int i = 0; i < 20; ++i) {
        auto body = debian_vm("web-" + std::to_string(i));
        body["spec"].as_object()["power"] = "off";
        body["spec"].as_object()["disk_gib"] = 1;
        replies.push_back(world.begin(net::Method::post, "/v1/vms?wait=300", body));
    }
    world.pass(10s);
    CHECK(world.web.under_way() == 1);
    for (int i = 0; i < 12; ++i) {
        const auto operations = world.get("/v1/operations?state=running");
        for (const auto& op : operations.at("/items").as_array())
            if (op.at_pointer("/progress/phase").as_string() == "downloading")
                CHECK(op.at_pointer("/progress/total").to_number<std::uint64_t>() == vendor.bytes.size());
        world.pass(20s);
    }
    for (const auto& reply : replies) {
        REQUIRE(reply->has_value());
        INFO(json::serialize((*reply)->body));
        CHECK((*reply)->status == 201);
    }
    CHECK(world.web.asked_for(url) == 1);
    CHECK(world.web.asked_for(sums) == 1);
}

TEST_CASE("who cancels leaves the download to the others; the last ends it, and nothing of it stays") {
    World world;
    Vendor vendor{world};
    vendor.hold();
    world.boot();
    const auto first = world.post("/v1/vms", debian_vm("first"));
    const auto second = world.post("/v1/vms", debian_vm("second"));
    const auto add = world.post("/v1/images", {{"source", "debian"}});
    CHECK(add.status == 202);
    world.pass(10s);
    REQUIRE(world.web.under_way() == 1);
    CHECK(world.get("/v1/images/debian").text("/state") == "downloading");
    CHECK(world.call(net::Method::del, "/v1/images/debian").text("/code") == "state_conflict");
    const auto cancel = [&](const Reply& reply) {
        return world.post("/v1/operations/" + reply.text("/id") + "/cancel?wait=60").text("/state");
    };
    CHECK(cancel(first) == "cancelled");
    CHECK(world.web.under_way() == 1);
    CHECK(cancel(add) == "cancelled");
    CHECK(world.web.under_way() == 1);
    SECTION("and one stays") {
        world.pass(300s);
        CHECK(world.get("/v1/operations/" + second.text("/id")).text("/state") == "succeeded");
        CHECK(world.web.asked_for(url) == 1);
    }
    SECTION("and nobody stays") {
        CHECK(cancel(second) == "cancelled");
        CHECK(world.web.under_way() == 0);
        CHECK(world.get("/v1/images/debian").status == 404);
        CHECK(world.store.images().empty());
        CHECK(temporaries(world) == 0);
        CHECK(world.get("/v1/vms").at("/items").as_array().empty());
        world.web.before_piece = {};
        CHECK(world.post("/v1/vms?wait=60", debian_vm("third")).status == 201);
    }
}

TEST_CASE("who comes while a fetch is given up begins it anew") {
    World world;
    Vendor vendor{world};
    vendor.hold();
    world.boot();
    const auto first = world.post("/v1/vms", debian_vm("first"));
    world.pass(10s);
    REQUIRE(world.web.under_way() == 1);
    const auto cancel =
        world.send(net::Method::post, "/v1/operations/" + first.text("/id") + "/cancel?wait=60", json::object{});
    const auto second = world.send(net::Method::post, "/v1/vms?wait=300", debian_vm("second"));
    world.pass(300s);
    REQUIRE(cancel->has_value());
    CHECK((*cancel)->text("/state") == "cancelled");
    REQUIRE(second->has_value());
    INFO(json::serialize((*second)->body));
    CHECK((*second)->status == 201);
    CHECK(world.get("/v1/images/debian").text("/state") == "available");
}

TEST_CASE("whenever another add comes while one fails, no name stays that nobody fetches") {
    for (int at = 1; at <= 6; ++at) {
        CAPTURE(at);
        World world;
        Vendor vendor{world};
        world.boot();
        auto& site = world.web.sites[url];
        site.faults.push_back({.status = 404});
        std::shared_ptr<std::optional<Reply>> second;
        int commits = 0;
        world.store.on_commit([&](const storage::Changes&) {
            if (++commits == at)
                second = world.send(net::Method::post, "/v1/images?wait=60", json::object{{"source", "debian"}});
        });
        const auto first = world.begin(net::Method::post, "/v1/images?wait=60", json::object{{"source", "debian"}});
        world.pass(120s);
        world.store.on_commit({});
        REQUIRE(first->has_value());
        const auto image = world.get("/v1/images/debian");
        CHECK((image.status == 404 || image.text("/state") == "available"));
        CHECK(world.store.images().contains("debian") == (image.status == 200));
        if (image.status == 404) CHECK(world.post("/v1/images?wait=60", {{"source", "debian"}}).status == 201);
    }
}

TEST_CASE("an add that waits for its turn keeps the name, whatever becomes of others") {
    World world;
    Vendor vendor{world};
    vendor.hold();
    world.boot();
    for (const std::string n : {"1", "2", "3", "4"}) {
        world.web.sites["https://a.example/" + n].bytes = vendor.bytes + n;
        const json::object body{
            {"name", "other-" + n}, {"source", "https://a.example/" + n}, {"allow_unverified", true}};
        REQUIRE(world.post("/v1/images", body).status == 202);
    }
    const auto vm = world.post("/v1/vms", debian_vm("web"));
    world.pass(5s);
    const auto add = world.post("/v1/images", {{"source", "debian"}});
    REQUIRE(world.get("/v1/operations/" + add.text("/id")).text("/state") == "pending");
    CHECK(world.post("/v1/operations/" + vm.text("/id") + "/cancel?wait=60").text("/state") == "cancelled");
    CHECK(world.get("/v1/images/debian").text("/state") == "downloading");
    SECTION("and fetches it at last") {
        world.pass(600s);
        CHECK(world.get("/v1/operations/" + add.text("/id")).text("/state") == "succeeded");
        CHECK(world.get("/v1/images/debian").text("/state") == "available");
    }
    SECTION("and takes it along when it is cancelled") {
        CHECK(world.post("/v1/operations/" + add.text("/id") + "/cancel?wait=60").text("/state") == "cancelled");
        CHECK(world.get("/v1/images/debian").status == 404);
    }
}

TEST_CASE("two names of the same download share it, and what the first leaves is gone on with") {
    World world;
    Vendor vendor{world};
    vendor.publish(1, 4 << 20);
    vendor.hold();
    world.boot();
    const auto add = [&](const std::string& name) {
        const auto digest = "sha256:" + net::sha256_hex(vendor.bytes);
        return world.post("/v1/images", {{"name", name}, {"source", url}, {"checksum", digest}});
    };
    const auto one = add("one");
    const auto two = add("two");
    world.pass(200s);
    REQUIRE(world.web.under_way() == 1);
    const auto waiting = world.get("/v1/operations/" + two.text("/id")).text("/progress/phase");
    CHECK(waiting == "waiting for the same download under another name");
    SECTION("one download for both") {
        world.web.before_piece = {};
        world.pass(60s);
        CHECK(world.web.asked_for(url) == 1);
        CHECK(world.get("/v1/images/one").text("/digest") == world.get("/v1/images/two").text("/digest"));
    }
    SECTION("the first is cancelled") {
        CHECK(world.post("/v1/operations/" + one.text("/id") + "/cancel?wait=60").text("/state") == "cancelled");
        CHECK(world.get("/v1/images/one").status == 404);
        world.web.before_piece = {};
        world.pass(60s);
        CHECK(world.web.asked.back().from > 0);
    }
    CHECK(world.get("/v1/images/two").text("/state") == "available");
    CHECK(world.files.exists(vendor.blob()));
    CHECK(temporaries(world) == 0);
}

TEST_CASE("a name isn't given to a blob whose file is gone") {
    World world;
    Vendor vendor{world};
    world.boot();
    REQUIRE(world.post("/v1/images?wait=60", {{"source", "debian"}}).status == 201);
    world.files.erase(vendor.blob());
    const auto digest = "sha256:" + net::sha256_hex(vendor.bytes);
    CHECK(world.post("/v1/images?wait=60", {{"name", "two"}, {"source", url}, {"checksum", digest}}).status == 201);
    CHECK(world.files.exists(vendor.blob()));
}

TEST_CASE("what is left of a download isn't given up while somebody is about to go on with it") {
    World world;
    Vendor vendor{world};
    vendor.publish(1, 4 << 20);
    vendor.hold();
    world.boot();
    const auto begun = world.post("/v1/vms", debian_vm("web"));
    world.pass(300s);
    world.crash();
    world.web.before_piece = {};
    for (int i = 0; i < 3; ++i) world.web.sites[sums].faults.push_back({.status = 503});
    world.boot();
    world.settle();
    CHECK(world.post("/v1/image-cache/prune?wait=1").status == 200);
    world.pass(60s);
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "succeeded");
    CHECK(world.web.asked.back().from > 0);
}

TEST_CASE("a download that a crash cut off is gone on with where it was") {
    World world;
    Vendor vendor{world};
    vendor.publish(1, 4 << 20);
    vendor.hold();
    world.boot();
    const bool by_image = GENERATE(true, false);
    CAPTURE(by_image);
    const auto begun =
        by_image ? world.post("/v1/images", {{"source", "debian"}}) : world.post("/v1/vms", debian_vm("web"));
    world.pass(300s);
    REQUIRE(world.web.under_way() == 1);
    SECTION("after kill -9") { world.crash(); }
    SECTION("after a stop") { world.shut_down(); }
    REQUIRE(temporaries(world) == 2);
    const auto asked = world.web.asked.size();
    world.web.before_piece = {};
    world.boot();
    world.pass(60s);
    CHECK(world.get("/v1/operations/" + begun.text("/id")).text("/state") == "succeeded");
    CHECK(world.get("/v1/images/debian").text("/state") == "available");
    CHECK(world.files.exists(vendor.blob()));
    CHECK(temporaries(world) == 0);
    REQUIRE(world.web.asked.size() > asked);
    const auto& resumed = world.web.asked.back();
    CHECK(resumed.url == url);
    CHECK(resumed.from > 0);
}

TEST_CASE("whatever was committed of a download when the agent died, the next goes on with it") {
    for (int kept = 1; kept <= 6; ++kept) {
        CAPTURE(kept);
        World world;
        Vendor vendor{world};
        world.boot();
        int commits = 0;
        world.store.on_commit([&](const storage::Changes&) {
            if (++commits == kept) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
        });
        const auto begun = world.begin(net::Method::post, "/v1/vms?wait=60", debian_vm("web"));
        world.store.on_commit({});
        world.store.fail_always({});
        world.crash();
        world.boot();
        world.pass(60s);
        CHECK(world.get("/v1/vms/web").text("/status/phase") == "ready");
        CHECK(world.get("/v1/images/debian").text("/state") == "available");
        CHECK(world.files.exists(vendor.blob()));
        CHECK(temporaries(world) == 0);
    }
}

TEST_CASE("without proof an image is refused, unless that is allowed, and it is marked") {
    World world;
    Vendor vendor{world};
    world.boot();
    const auto refused = world.post("/v1/images?wait=60", {{"source", url}});
    CHECK(refused.status == 422);
    CHECK(refused.text("/code") == "unverified_image");
    CHECK(world.web.asked.empty());
    const auto taken = world.post("/v1/images?wait=60", {{"source", url}, {"allow_unverified", true}});
    CHECK(taken.status == 201);
    CHECK(taken.text("/verified") == "none");
    const auto proven =
        world.post("/v1/images?wait=60",
                   {{"source", url}, {"name", "proven"}, {"checksum", "sha256:" + net::sha256_hex(vendor.bytes)}});
    CHECK(proven.status == 201);
    CHECK(proven.text("/verified") == "checksum");
    CHECK(proven.text("/digest") == taken.text("/digest"));
    CHECK(world.web.asked_for(url) == 1);  // the same bytes were here
}

TEST_CASE("what isn't what its checksum says is refused at once, and nothing is kept") {
    World world;
    Vendor vendor{world};
    world.web.sites[sums].bytes = std::string(64, 'a') + "  debian.qcow2\n";
    world.boot();
    const auto wrong = world.post("/v1/vms?wait=60", debian_vm("web"));
    CHECK(wrong.status == 422);
    CHECK(wrong.text("/code") == "checksum_mismatch");
    CHECK(world.web.asked_for(url) == 1);
    CHECK(world.get("/v1/vms").at("/items").as_array().empty());
    CHECK(world.get("/v1/images").at("/items").as_array().empty());
    CHECK(temporaries(world) == 0);
}

TEST_CASE("a signed list counts only when its signature is good") {
    World world;
    Vendor vendor{world};
    auto& entry = world.config.images.catalogue.at("debian");
    entry.signature = "https://a.example/SHA256SUMS.gpg";
    entry.keyring = "keys";
    entry.keyring_name = "vendor.gpg";
    world.web.sites[entry.signature].bytes = "signature";
    std::string verdict = "[GNUPG:] BADSIG 1 x\n";
    auto qemu = fakes::fake_qemu_img(world.files);
    world.processes.set_answer([&](const std::vector<std::string>& argv) -> base::Result<base::Exit> {
        if (argv.front() != "gpgv") return qemu(argv);
        CHECK(world.files.find(argv.back())->bytes == world.web.sites[sums].bytes);
        return base::Exit{0, verdict, {}};
    });
    world.boot();
    const auto wrong = world.post("/v1/images?wait=60", {{"source", "debian"}});
    CHECK(wrong.status == 422);
    CHECK(wrong.text("/code") == "signature_invalid");
    CHECK(world.web.asked_for(url) == 0);
    CHECK(temporaries(world) == 0);
    verdict = "[GNUPG:] GOODSIG 1 x\n[GNUPG:] VALIDSIG ABCD 2026\n";
    CHECK(world.post("/v1/images?wait=60", {{"source", "debian"}}).text("/verified") == "signature");
    CHECK(temporaries(world) == 0);
}

TEST_CASE("a VM whose disk is too small for what came is refused, one that didn't say grows") {
    World world;
    Vendor vendor{world};
    vendor.bytes = fakes::qcow2_bytes(30ULL << 30U);
    world.web.sites[url].bytes = vendor.bytes;
    world.web.sites[sums].bytes = net::sha256_hex(vendor.bytes);
    world.boot();
    auto small = debian_vm("small");
    small["spec"].as_object()["disk_gib"] = 10;
    const auto refused = world.post("/v1/vms?wait=60", small);
    CHECK(refused.status == 422);
    CHECK(refused.text("/errors/0/pointer") == "/spec/disk_gib");
    auto silent = debian_vm("silent");
    silent["spec"].as_object().erase("disk_gib");
    const auto made = world.post("/v1/vms?wait=60", silent);
    INFO(json::serialize(made.body));
    REQUIRE(made.status == 201);
    CHECK(made.at("/spec/disk_gib").as_int64() == 30);
}

TEST_CASE("a dry run says what would be fetched, and fetches nothing") {
    World world;
    Vendor vendor{world};
    world.boot();
    const auto vm = world.post("/v1/vms?dry_run=true", debian_vm("web"));
    CHECK(vm.status == 200);
    CHECK(vm.text("/would/0") == "fetch the image debian");
    const auto add = world.post("/v1/images?dry_run=true", {{"source", "debian"}});
    CHECK(add.status == 200);
    CHECK(add.text("/would/0").find(url) != std::string::npos);
    CHECK(world.web.asked.empty());
    CHECK(world.get("/v1/images").at("/items").as_array().empty());
}

TEST_CASE("the catalogue is listed, with what is here of it") {
    World world;
    Vendor vendor{world};
    world.boot();
    auto list = world.get("/v1/images?remote=true");
    CHECK(list.text("/items/0/name") == "debian");
    CHECK(list.text("/items/0/url") == url);
    CHECK(list.at("/items/0/state").is_null());
    CHECK(world.post("/v1/images?wait=60", {{"source", "debian"}}).status == 201);
    list = world.get("/v1/images?remote=true");
    CHECK(list.text("/items/0/state") == "available");
    CHECK(world.get("/v1/images").at("/items").as_array().size() == 1);
}

TEST_CASE("bad requests are told what is allowed") {
    World world;
    Vendor vendor{world};
    world.boot();
    for (const auto& [body, pointer] : std::vector<std::pair<json::object, std::string>>{
             {{{"source", "fedora"}}, "/source"},
             {{{"source", "http://a.example/x.qcow2"}}, "/source"},
             {{{"source", "https:///x"}}, "/source"},
             {{{"source", "https://u:p@a.example/x"}, {"allow_unverified", true}}, "/source"},
             {{{"source", "debian"}, {"checksum", "sha256:" + std::string(64, 'a')}}, "/checksum"},
             {{{"source", url}, {"checksum", "md5:1"}}, "/checksum"},
             {{{"source", "https://a.example/"}, {"allow_unverified", true}}, "/name"}}) {
        INFO(json::serialize(body));
        const auto refused = world.post("/v1/images", body);
        CHECK(refused.status == 422);
        CHECK(refused.text("/errors/0/pointer") == pointer);
    }
    const auto none = world.post("/v1/vms", vm_body("web", {{"image", "nothing"}}));
    CHECK(none.status == 422);
    CHECK(none.text("/errors/0/pointer") == "/spec/image");
}
