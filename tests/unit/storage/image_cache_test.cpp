#include "storage/image_cache.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/fake_processes.hpp"
#include "fakes/fake_web.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/skipping_clock.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using base::Errc;

namespace {

struct Fixture {
    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    fakes::FakeProcesses processes{fakes::fake_qemu_img(files)};
    fakes::SkippingClock clock;
    fakes::SeededRandom random;
    fakes::FakeWeb web;
    storage::Fetcher fetcher{web, files, clock, random, 0};
    storage::ImageCache cache{"/images", files, processes, fetcher};

    Fixture() {
        files.put("/in/debian.qcow2", fakes::qcow2_bytes(8 << 20));
        REQUIRE(loop.await(cache.open()));
    }
    base::Result<storage::Blob> import(std::string source = "/in/debian.qcow2") {
        return loop.await(cache.import(std::move(source), {{}, {}, "op1"}, {}));
    }
    // Only the source is left.
    [[nodiscard]] bool clean() const { return files.files() == std::vector<std::string>{"/in/debian.qcow2"}; }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "an import runs info and check on the copy, once each") {
    const auto blob = import();
    REQUIRE(blob);
    CHECK(files.exists(blob->path));
    CHECK(files.find(blob->path)->mode == 0444);
    CHECK(blob->virtual_size == 8 << 20);
    CHECK(processes.calls().size() == 2);
    CHECK(processes.calls_with("/images/.import-op1") == 2);
    CHECK(processes.calls_with("/in/debian.qcow2") == 0);
}

TEST_CASE_METHOD(Fixture, "an image with a backing file never reaches qemu-img") {
    files.put("/in/evil", fakes::qcow2_bytes(1 << 20, "/etc/shadow", "raw"));
    CHECK(import("/in/evil").error().code == Errc::invalid_image);
    CHECK(processes.calls().empty());
}

TEST_CASE_METHOD(Fixture, "an import that fails at any change or run leaves nothing, and works when tried again") {
    for (unsigned n = 1; n <= 2; ++n) {
        files.fail_change(n, {Errc::io_error, "broken disk"});
        CHECK(import().error().detail == "broken disk");
        CHECK(clean());
    }
    for (unsigned n = 1; n <= 2; ++n) {
        processes.fail_run(n, base::fail(Errc::deadline_exceeded, "qemu-img: too slow"));
        CHECK(import().error().code == Errc::deadline_exceeded);
        CHECK(clean());
        processes.fail_run(n, base::Exit{1, "", "qemu-img: Could not open '/images/.import-op1': odd\n"});
        const auto odd = import();
        REQUIRE_FALSE(odd);
        CHECK(odd.error().detail.find(".import-") == std::string::npos);
        CHECK(clean());
    }
    processes.fail_run(1, base::Exit{0, "{]", ""});
    CHECK(import().error().code == Errc::io_error);
    CHECK(clean());
    processes.fail_run(2, base::Exit{2, R"({"corruptions": 3})", ""});
    CHECK(import().error().detail.find("3 faults") != std::string::npos);
    CHECK(clean());
    CHECK(import());
}

TEST_CASE_METHOD(Fixture, "leaked clusters are no fault") {
    processes.fail_run(2, base::Exit{3, R"({"leaks": 2})", ""});
    CHECK(import());
}

TEST_CASE_METHOD(Fixture, "a cancellation at any step leaves nothing, and the caller's cancellation stays felt") {
    for (const auto* phase : {"inspecting", "copying", "checking"}) {
        INFO(phase);
        auto task = [](Fixture& f, std::string when) -> boost::asio::awaitable<base::Result<storage::Blob>> {
            auto progress = [&f, when](const storage::ImportProgress& at) {
                if (at.phase == when) f.loop.cancel();
            };
            auto blob = co_await f.cache.import("/in/debian.qcow2", {{}, {}, "op1"}, std::move(progress));
            if (!co_await boost::asio::this_coro::throw_if_cancelled()) co_return base::fail(Errc::internal, "changed");
            co_return blob;
        };
        const auto blob = loop.await(task(*this, phase));
        REQUIRE_FALSE(blob);
        CHECK(blob.error().code == Errc::cancelled);
        CHECK(clean());
    }
}

TEST_CASE_METHOD(Fixture, "a work name can't lead out of the directory") {
    CHECK(loop.await(cache.import("/in/debian.qcow2", {{}, {}, "../x"}, {})).error().code == Errc::internal);
    CHECK(loop.await(cache.import("/in/debian.qcow2", {{}, {}, ""}, {})).error().code == Errc::internal);
}

TEST_CASE_METHOD(Fixture, "no qemu-img on the host is said as such") {
    processes.set_answer({});
    const auto blob = import();
    REQUIRE_FALSE(blob);
    CHECK(blob.error().detail.find("qemu-utils") != std::string::npos);
    CHECK(clean());
}
