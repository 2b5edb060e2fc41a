#include "fakes/awaiting.hpp"
#include "fakes/fake_web.hpp"
#include "fakes/scratch_folder.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/skipping_clock.hpp"
#include "qemu_files.hpp"
#include "small_disk.hpp"
#include "storage/image_cache.hpp"
#include "storage/local_files.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <vector>

using namespace ghost;
using base::Errc;
namespace fs = std::filesystem;

namespace {

struct Local {
    std::string source;
    storage::TakeIn what;
};

struct Fixture {
    fakes::TestLoop loop;
    fakes::ScratchFolder folder;
    storage::LocalFiles files;
    base::ChildProcesses processes;
    fakes::SkippingClock clock;
    fakes::SeededRandom random;
    fakes::FakeWeb web;
    storage::Fetcher fetcher{web, files, clock, random, 0};
    storage::ImageCache cache{folder.path("images"), files, processes, fetcher};

    Fixture() { REQUIRE(loop.await(cache.open())); }

    std::string qcow2(const std::string& name, const std::string& options = {}) {
        const auto path = folder.path(name);
        qemu_img("create -f qcow2 " + options + " '" + path + "' 8M");
        return path;
    }
    base::Result<storage::Blob> import(Local local) {
        return loop.await(cache.import(std::move(local.source), std::move(local.what), {}));
    }
    base::Error refused(Local request) {
        const auto blob = import(std::move(request));
        REQUIRE_FALSE(blob);
        CHECK(kept().empty());
        INFO(blob.error().detail);
        return blob.error();
    }
    std::vector<std::string> kept() {
        auto names = loop.await(files.list(cache.directory()));
        REQUIRE(names);
        return *names;
    }
};

Local of(std::string source, std::optional<std::string> format = {}, std::optional<std::string> checksum = {}) {
    return {std::move(source), {std::move(format), std::move(checksum), "test"}};
}

}  // namespace

TEST_CASE_METHOD(Fixture, "a good qcow2 becomes a read-only blob named by its digest") {
    const auto source = qcow2("good.qcow2");
    std::vector<std::string> phases;
    const auto blob = loop.await(cache.import(source, {{}, {}, "w1"}, [&](const storage::ImportProgress& progress) {
        if (phases.empty() || phases.back() != progress.phase) phases.push_back(progress.phase);
    }));
    REQUIRE(blob);
    CHECK(blob->format == "qcow2");
    CHECK(blob->virtual_size == 8U << 20U);
    CHECK(blob->size == fs::file_size(source));
    CHECK(blob->path == cache.path_of(blob->digest, "qcow2"));
    CHECK(kept() == std::vector<std::string>{blob->digest.substr(7) + ".qcow2"});
    struct stat found = {};
    REQUIRE(::stat(blob->path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777U) == 0444);
    CHECK(phases == std::vector<std::string>{"inspecting", "copying", "checking"});

    // The same bytes again, by another name and with their checksums: the same blob, untouched.
    fs::copy_file(source, folder.path("again"));
    CHECK(import(of(folder.path("again"), "qcow2", blob->digest))->path == blob->path);
    CHECK(kept().size() == 1);
    struct stat after = {};
    REQUIRE(::stat(blob->path.c_str(), &after) == 0);
    CHECK(after.st_ino == found.st_ino);

    REQUIRE(loop.await(cache.remove(blob->digest, "qcow2")));
    CHECK(kept().empty());
}

TEST_CASE_METHOD(Fixture,
                 "qcow2 of the old version, compressed, with small clusters and with internal snapshots are fine") {
    for (const auto* options :
         {"-o compat=0.10", "-o cluster_size=512", "-o extended_l2=on", "-o compression_type=zstd"}) {
        INFO(options);
        CHECK(import(of(qcow2("a.qcow2", options))));
    }
    const auto snapshots = qcow2("s.qcow2");
    qemu_img("snapshot -c one " + snapshots);
    CHECK(import(of(snapshots)));
}

TEST_CASE_METHOD(Fixture, "a raw disk is taken when it is said to be raw, and only then") {
    const auto source = folder.write("disk.img", std::string(1'000'000, 'r'));
    const auto blob = import(of(source, "raw"));
    REQUIRE(blob);
    CHECK(blob->format == "raw");
    CHECK(blob->virtual_size == 1'000'448);  // whole sectors
    CHECK(blob->path.ends_with(".raw"));
    REQUIRE(loop.await(cache.remove(blob->digest, "raw")));

    const auto guessed = refused(of(source));
    CHECK(guessed.code == Errc::invalid_image);
    CHECK(guessed.detail.find("raw") != std::string::npos);
    CHECK(refused(of(qcow2("q"), "raw")).code == Errc::invalid_image);
    CHECK(refused(of(source, "qcow2")).code == Errc::invalid_image);
    CHECK(refused(of(source, "vmdk")).code == Errc::validation_failed);
}

TEST_CASE_METHOD(Fixture, "an image that stands on other files is refused, and they are never opened") {
    qcow2("base.qcow2");
    const auto over = qcow2("over.qcow2", "-b " + folder.path("base.qcow2") + " -F qcow2");
    auto error = refused(of(over));
    CHECK(error.code == Errc::invalid_image);
    CHECK(error.detail.find("backing file") != std::string::npos);

    const auto data = qcow2("data.qcow2", "-o data_file=" + folder.path("data.raw"));
    error = refused(of(data));
    CHECK(error.code == Errc::invalid_image);
    CHECK(error.detail.find("another file") != std::string::npos);

    // A backing file that would block whoever opened it.
    const auto fifo = folder.path("fifo");
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    qemu_img("rebase -u -f qcow2 -F raw -b " + fifo + " " + over);
    CHECK(refused(of(over)).detail.find("backing file") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "an encrypted image is refused") {
    const auto source = qcow2("e.qcow2", "-o encrypt.format=aes,encrypt.key-secret=s --object secret,id=s,data=abc");
    const auto error = refused(of(source));
    CHECK(error.code == Errc::invalid_image);
    CHECK(error.detail.find("encrypted") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "what is no image is refused with the format that was found") {
    CHECK(refused(of(folder.write("text", "hello\n"))).code == Errc::invalid_image);
    CHECK(refused(of(folder.write("empty", ""))).code == Errc::invalid_image);
    CHECK(refused(of(folder.write("empty", ""), "raw")).code == Errc::invalid_image);
    qemu_img("create -f vmdk " + folder.path("v.vmdk") + " 4M");
    CHECK(refused(of(folder.path("v.vmdk"))).detail.find("vmdk") != std::string::npos);
    CHECK(refused(of(folder.path())).code == Errc::invalid_image);
    CHECK(refused(of(folder.path("nothing"))).code == Errc::not_found);
    CHECK(refused(of("relative")).code == Errc::validation_failed);
    CHECK(refused(of("json:{\"driver\":\"nbd\"}")).code == Errc::validation_failed);
}

TEST_CASE_METHOD(Fixture, "a damaged qcow2 is refused") {
    const auto source = folder.path("d.qcow2");
    const auto raw = folder.write("raw", std::string(4 << 20, 'd'));
    qemu_img("convert -O qcow2 " + raw + " " + source);
    const auto good = folder.read("d.qcow2");
    folder.write("d.qcow2", good.substr(0, 60));  // within the header
    CHECK(refused(of(source)).code == Errc::invalid_image);
    folder.write("d.qcow2", good.substr(0, 70'000));  // its tables lie beyond the end
    CHECK(refused(of(source)).code == Errc::invalid_image);
    auto scrambled = good;
    std::fill(scrambled.begin() + 65536 * 3, scrambled.begin() + 65536 * 4, '\x77');
    folder.write("d.qcow2", scrambled);
    CHECK(refused(of(source)).code == Errc::invalid_image);
}

TEST_CASE_METHOD(Fixture, "a disk larger than allowed is refused") {
    const auto source = folder.path("big.qcow2");
    qemu_img("create -f qcow2 " + source + " 17T");
    const auto error = refused(of(source));
    CHECK(error.code == Errc::invalid_image);
    CHECK(error.facts.at("virtual_size").to_number<std::uint64_t>() == 17ULL << 40U);
}

TEST_CASE_METHOD(Fixture, "a file whose name looks like a protocol is only a file") {
    for (const auto* name : {"json:{}", "nbd:localhost:1", "-f", "a,b=c.qcow2", "sp ace.qcow2"}) {
        INFO(name);
        const auto made = qcow2("plain.qcow2");
        fs::rename(made, folder.path(name));
        CHECK(import(of(folder.path(name))));
    }
}

TEST_CASE_METHOD(Fixture, "a checksum is compared, of either kind and in either case") {
    const auto source = folder.write("abc", "abc");
    const std::string sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const std::string sha512 =
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    CHECK(import(of(source, "raw", "sha256:" + sha256)));
    CHECK(import(of(source, "raw", "sha512:" + sha512)));
    auto upper = sha256;
    for (auto& c : upper) c = static_cast<char>(::toupper(c));
    const auto blob = import(of(source, "raw", "sha256:" + upper));
    REQUIRE(blob);
    CHECK(blob->digest == "sha256:" + sha256);
    REQUIRE(loop.await(cache.remove(blob->digest, "raw")));

    auto wrong = sha256;
    wrong[0] = '0';
    const auto error = refused(of(source, "raw", "sha256:" + wrong));
    CHECK(error.code == Errc::checksum_mismatch);
    CHECK(error.facts.at("expected").as_string() == "sha256:" + wrong);
    CHECK(error.facts.at("actual").as_string() == "sha256:" + sha256);
    for (const auto* bad : {"sha256:abc", "md5:900150983cd24fb0d6963f7d28e17f72", "sha256", "", ":"})
        CHECK(refused(of(source, "raw", bad)).code == Errc::validation_failed);
}

TEST_CASE_METHOD(Fixture, "an import cancelled in mid-copy leaves nothing") {
    const auto source = folder.write("huge", "x");
    fs::resize_file(source, 4ULL << 40U);
    const auto blob = loop.await(cache.import(source, {"raw", {}, "w"}, [&](const storage::ImportProgress& progress) {
        if (progress.phase == "copying") loop.cancel();
    }));
    REQUIRE_FALSE(blob);
    CHECK(blob.error().code == Errc::cancelled);
    CHECK(kept().empty());
}

TEST_CASE_METHOD(Fixture, "an import onto a full file system says what is needed and free, and leaves nothing") {
    const SmallDisk disk{folder.path("disk"), 1U << 20U};
    if (!disk.mounted()) {
        WARN("no right to mount a tmpfs: not run");
        return;
    }
    storage::ImageCache small{disk.path("images"), files, processes, fetcher};
    REQUIRE(loop.await(small.open()));
    const auto source = folder.write("raw", std::string(3 << 20, 'x'));
    const auto blob = loop.await(small.import(source, {"raw", {}, "w"}, {}));
    REQUIRE_FALSE(blob);
    CHECK(blob.error().code == Errc::insufficient_storage);
    CHECK(blob.error().facts.contains("needed"));
    CHECK(blob.error().facts.contains("free"));
    CHECK(fs::is_empty(disk.path("images")));
}

TEST_CASE_METHOD(Fixture, "temporaries that a crash left are cleared at the next start, blobs stay") {
    const auto blob = import(of(qcow2("a")));
    REQUIRE(blob);
    for (const auto* left : {".import-old", ".proof-old.text", "..proof-old.sig.new", ".download-gone.part.json",
                             "..download-here.part.json.new"})
        folder.write(std::string{"images/"} + left, "half");
    // A download is gone on with.
    folder.write("images/.download-here.part", "half");
    folder.write("images/.download-here.part.json", "{}");
    REQUIRE(loop.await(cache.open()));
    CHECK(kept() == std::vector<std::string>{".download-here.part", ".download-here.part.json",
                                             blob->digest.substr(7) + ".qcow2"});
}
