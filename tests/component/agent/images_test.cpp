#include "component/agent/world.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cctype>

using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

namespace {

void by_certificate(net::Request& request) {
    request.context.who = {base::Principal::Kind::certificate, "operator", true};
}

}  // namespace

TEST_CASE("an image is added once, shown with its users, and kept while it is used") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto image = world.get("/v1/images/tiny");
    CHECK(image.text("/state") == "available");
    CHECK(image.text("/verified") == "local");
    CHECK(image.text("/digest").starts_with("sha256:"));
    CHECK(image.text("/used_by/0") == id);
    CHECK(world.post("/v1/images", {{"source", "file:///images/tiny.qcow2"}}).text("/code") == "already_exists");

    const auto refused = world.call(net::Method::del, "/v1/images/tiny");
    CHECK(refused.status == 409);
    CHECK(refused.text("/used_by/0") == id);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    CHECK(world.call(net::Method::del, "/v1/images/tiny?wait=60").status == 200);
    CHECK(world.get("/v1/images/tiny").status == 404);
    CHECK(world.files.files() == std::vector<std::string>{"/images/tiny.qcow2"});
}

TEST_CASE("two names share a blob, and the last one takes it along") {
    World world;
    world.boot();
    world.add_image();
    CHECK(world.post("/v1/images?wait=60", {{"name", "second"}, {"source", "file:///images/tiny.qcow2"}}).status ==
          201);
    CHECK(world.call(net::Method::del, "/v1/images/tiny?wait=60").status == 200);
    CHECK(world.post("/v1/vms?wait=60", vm_body("web", {{"image", "second"}})).status == 201);
    CHECK(world.call(net::Method::del, "/v1/images/second").status == 409);

    // A name in a VM's spec stays, also when its blob would stay under another name.
    CHECK(world.post("/v1/images?wait=60", {{"name", "third"}, {"source", "file:///images/tiny.qcow2"}}).status == 201);
    CHECK(world.call(net::Method::del, "/v1/images/second").status == 409);
    CHECK(world.call(net::Method::del, "/v1/images/third?wait=60").status == 200);
}

TEST_CASE("an image doesn't take what is reserved for the owner") {
    World world;
    world.boot();
    world.files.put("/images/small.qcow2", fakes::qcow2_bytes(1 << 20));
    const auto free = world.get("/v1/resources").at("/disk_bytes/free").to_number<std::uint64_t>();
    world.config.resources.reserved_disk_gb += static_cast<double>(free) / (1ULL << 30U);
    world.shut_down();
    world.boot();
    REQUIRE(world.get("/v1/resources").at("/disk_bytes/free").to_number<std::uint64_t>() <
            world.files.find("/images/small.qcow2")->bytes.size());
    const auto before = world.files.files();
    const auto refused = world.post("/v1/images?wait=60", {{"source", "file:///images/small.qcow2"}});
    CHECK(refused.status == 507);
    CHECK(refused.at("/needed/disk_bytes").as_int64() > 0);
    CHECK(world.files.files() == before);
    CHECK(world.get("/v1/images").at("/items").as_array().empty());
}

TEST_CASE("volumes of others beside ours are no room for what was promised") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    world.pass(std::chrono::seconds{30});
    const auto free = [&] { return world.get("/v1/resources").at("/disk_bytes/free").to_number<std::uint64_t>(); };
    const auto before = free();
    constexpr std::size_t size = 10U << 20U;
    world.files.put(world.config.state_dir + "/disks/others.raw", std::string(size, 'x'));
    world.pass(std::chrono::seconds{30});
    CHECK(free() == before - size);
}

TEST_CASE("an add cut off by a crash is gone on with, whatever was committed of it") {
    // Its acceptance, its step, its record, its end.
    for (int kept = 1; kept <= 4; ++kept) {
        CAPTURE(kept);
        World world;
        world.boot();
        world.files.put("/images/tiny.qcow2", fakes::qcow2_bytes(1 << 20));
        int commits = 0;
        world.store.on_commit([&](const storage::Changes&) {
            if (++commits == kept) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
        });
        const auto add =
            world.begin(net::Method::post, "/v1/images?wait=60", json::object{{"source", "file:///images/tiny.qcow2"}});
        world.store.on_commit({});
        world.store.fail_always({});
        world.crash();
        world.boot();
        const auto image = world.get("/v1/images/tiny");
        REQUIRE(image.status == 200);
        CHECK(image.text("/state") == "available");
        CHECK(world.files.exists("/var/lib/ghost/images/" + image.text("/digest").substr(7) + ".qcow2"));
        CHECK(world.files.files().size() == 2);
        CHECK(world.store.images().contains("tiny"));
        CHECK(world.post("/v1/vms?wait=60", vm_body("web")).status == 201);
    }
}

TEST_CASE("an image that a crash left whole is there after a start that can't write that down") {
    World world;
    world.boot();
    world.add_image();
    const auto available = world.store.images().at("tiny").document;
    auto downloading = available;
    downloading.replace(downloading.find("available"), 9, "downloading");
    world.crash();
    boost::asio::co_spawn(world.loop, world.store.commit({storage::ImageRow{"tiny", downloading}}),
                          boost::asio::detached);
    world.settle();
    world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    world.boot();
    CHECK(world.get("/v1/images/tiny").text("/state") == "available");
    world.crash();
    CHECK(world.store.images().at("tiny").document == downloading);
    world.store.fail_always({});
    world.boot();
    CHECK(world.get("/v1/images/tiny").text("/state") == "available");
    CHECK(world.store.images().at("tiny").document.contains("available"));
}

TEST_CASE("a delete of an image cut off by a crash is finished at the next start") {
    World world;
    world.boot();
    world.add_image();
    const auto files = world.files.files().size();
    int commits = 0;
    world.store.on_commit([&](const storage::Changes&) {
        // After its acceptance and its step.
        if (++commits == 2) world.store.fail_always(base::Error{base::Errc::io_error, "no luck"});
    });
    const auto remove = world.begin(net::Method::del, "/v1/images/tiny?wait=60");
    CHECK(world.files.files().size() == files - 1);  // the blob is gone, the record isn't
    REQUIRE(world.store.images().contains("tiny"));
    world.store.on_commit({});
    world.store.fail_always({});
    world.crash();
    world.boot();
    CHECK(world.store.images().empty());
    CHECK(world.get("/v1/images/tiny").status == 404);
}

TEST_CASE("what is no image is refused, and nothing of it is kept") {
    World world;
    world.boot();
    world.files.put("/images/text.qcow2", "just text");
    world.files.put("/images/backed.qcow2", fakes::qcow2_bytes(1 << 20, "/etc/shadow", "raw"));
    const auto before = world.files.files();
    for (const auto* name : {"text", "backed"}) {
        CAPTURE(name);
        const auto refused =
            world.post("/v1/images?wait=60", {{"source", std::string{"file:///images/"} + name + ".qcow2"}});
        CHECK(refused.status == 422);
        CHECK(refused.text("/code") == "invalid_image");
        CHECK(world.get(std::string{"/v1/images/"} + name).status == 404);
    }
    CHECK(world.files.files() == before);
    CHECK(world.post("/v1/images?wait=60", {{"source", "file:///images/none.qcow2"}}).status == 404);
    CHECK(world
              .post("/v1/images?wait=60", {{"source", "file:///images/text.qcow2"},
                                           {"checksum", "sha256:" + std::string(64, '0')},
                                           {"format", "raw"}})
              .text("/code") == "checksum_mismatch");
}

TEST_CASE("a checksum may be written in capitals") {
    World world;
    world.boot();
    world.add_image();
    auto digest = world.get("/v1/images/tiny").text("/digest").substr(std::string_view{"sha256:"}.size());
    std::ranges::transform(digest, digest.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto add = [&world](const std::string& checksum) {
        return world.post("/v1/images?wait=60",
                          {{"name", "second"}, {"source", "file:///images/tiny.qcow2"}, {"checksum", checksum}});
    };
    CHECK(add("sha256:" + digest.substr(1) + "g").status == 422);
    const auto added = add("sha256:" + digest);
    CHECK(added.status == 201);
    CHECK(added.text("/verified") == "checksum");
}

TEST_CASE("a local file is for the socket, and for everybody from the import directories") {
    World world;
    world.files.put("/images/tiny.qcow2", fakes::qcow2_bytes(1ULL << 30));
    world.files.put("/exports/a.qcow2", fakes::qcow2_bytes(1ULL << 30));
    world.files.put_directory("/exports");
    world.files.link("/exports/sly.qcow2", "/images/tiny.qcow2");
    world.config.images.import_dirs = {"/exports"};
    world.boot();
    const auto add = [&world](std::string path) {
        return world.call(net::Method::post, "/v1/images?wait=60", json::object{{"source", "file://" + path}},
                          by_certificate);
    };
    CHECK(add("/exports/a.qcow2").status == 201);
    CHECK(add("/images/tiny.qcow2").status == 403);
    CHECK(add("/exports/sly.qcow2").status == 403);
    CHECK(add("/exports/../images/tiny.qcow2").status == 403);
    CHECK(add("/exports/none").status == 403);
    CHECK(world.post("/v1/images", {{"source", "https://example.org/a.qcow2"}}).status == 422);
}

TEST_CASE("a VM of an image that isn't there is refused with the place of the fault") {
    World world;
    world.boot();
    const auto refused = world.post("/v1/vms", vm_body("web"));
    CHECK(refused.status == 422);
    CHECK(refused.text("/errors/0/pointer") == "/spec/image");
    world.add_image();
    CHECK(world.post("/v1/vms?wait=9", vm_body("web")).status == 201);
    CHECK(world.post("/v1/vms", vm_body("web")).text("/code") == "already_exists");
}
