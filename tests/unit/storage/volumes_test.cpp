#include "storage/volumes.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/fake_processes.hpp"
#include "fakes/memory_files.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using base::Errc;

namespace {

struct Fixture {
    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    fakes::FakeProcesses processes{fakes::fake_qemu_img(files)};
    storage::Volumes volumes{files, processes};

    Fixture() {
        files.put_directory("/disks");
        files.put("/images/a.qcow2", fakes::qcow2_bytes(8 << 20));
    }
    base::Result<void> create() {
        return loop.await(volumes.create_overlay("/disks/v.qcow2", "/images/a.qcow2", "qcow2", 16 << 20));
    }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "the create path runs wholly in memory") {
    REQUIRE(create());
    CHECK(files.find("/disks/v.qcow2")->mode == 0600);
    const auto info = loop.await(volumes.inspect("/disks/v.qcow2"));
    REQUIRE(info);
    CHECK(info->backing_path == "/images/a.qcow2");
    CHECK(info->backing_format == "qcow2");
    CHECK(info->virtual_size == 16 << 20);
    REQUIRE(loop.await(volumes.grow("/disks/v.qcow2", 32 << 20)));
    CHECK(loop.await(volumes.inspect("/disks/v.qcow2"))->virtual_size == 32 << 20);
    CHECK(loop.await(volumes.inspect("/disks/v.qcow2"))->backing_path == "/images/a.qcow2");
}

TEST_CASE_METHOD(Fixture, "qemu-img never sees a word that it could take for an option or a protocol") {
    REQUIRE(create());
    const std::vector<std::string> expected{"qemu-img",        "create", "-q",    "-f", "qcow2",          "-b",
                                            "/images/a.qcow2", "-F",     "qcow2", "--", "/disks/v.qcow2", "16777216"};
    CHECK(processes.calls().at(0) == expected);
    CHECK(loop.await(volumes.create_blank("v.qcow2", 1)).error().code == Errc::validation_failed);
    CHECK(processes.calls().size() == 1);
}

TEST_CASE_METHOD(Fixture, "the local file that a qcow2 stands on is found in every way of naming it") {
    const auto backing = [this](const std::string& name, const std::string& format = "qcow2") {
        files.put("/disks/v.qcow2", fakes::qcow2_bytes(8 << 20, name, format));
        return loop.await(volumes.backing_of("/disks/v.qcow2"));
    };
    const auto path = [&backing](const std::string& name) {
        const auto found = backing(name);
        REQUIRE(found);
        return *found ? (*found)->path : std::string{};
    };
    CHECK(path("/images/a.qcow2") == "/images/a.qcow2");
    CHECK(path("../images/a.qcow2") == "/images/a.qcow2");
    CHECK(path("file:/images/a.qcow2") == "/images/a.qcow2");
    CHECK(path(R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"/images/a.qcow2"}})") ==
          "/images/a.qcow2");
    CHECK(path(R"(json:{"driver":"raw","file.filename":"/images/a.qcow2"})") == "/images/a.qcow2");
    CHECK(path("odd:name/a.qcow2").empty());
    CHECK(path("/images/odd:name.qcow2") == "/images/odd:name.qcow2");
    CHECK(path("nbd://host:10809/a").empty());
    CHECK(path("").empty());
    CHECK((*backing("/images/a.raw", "raw"))->format == "raw");
    CHECK(backing("json:{").error().code == Errc::invalid_image);
    files.put("/disks/v.qcow2", {"QFI\xfb\0\0\0\x09", 8});
    CHECK(loop.await(volumes.backing_of("/disks/v.qcow2")).error().code == Errc::invalid_image);
    files.put("/disks/v.qcow2", "no qcow2");
    CHECK_FALSE(loop.await(volumes.backing_of("/disks/v.qcow2")).value());
    CHECK(loop.await(volumes.backing_of("/disks/none.qcow2")).error().code == Errc::not_found);
}

TEST_CASE_METHOD(Fixture, "a creation that fails, at whatever step, leaves no file") {
    files.fail_change(1, {Errc::io_error, "broken disk"});
    CHECK_FALSE(create());
    CHECK_FALSE(files.exists("/disks/v.qcow2"));
    processes.fail_run(1,
                       base::Exit{1, "", "qemu-img: /disks/v.qcow2: Could not resize file: No space left on device\n"});
    const auto full = create();
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::insufficient_storage);
    CHECK(full.error().facts.contains("free"));
    CHECK_FALSE(files.exists("/disks/v.qcow2"));
    processes.fail_run(1, base::fail(Errc::cancelled, "cancelled"));
    CHECK(create().error().code == Errc::cancelled);
    CHECK_FALSE(files.exists("/disks/v.qcow2"));
    CHECK(create());
}
