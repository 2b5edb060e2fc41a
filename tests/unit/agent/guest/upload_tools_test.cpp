#include "agent/guest/upload_tools.hpp"

#include "agent/guest/guest_text.hpp"
#include "base/descriptor.hpp"
#include "fakes/scratch_folder.hpp"
#include "unit/agent/cli/child.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

using namespace ghost;
using namespace ghost::agent;
namespace fs = std::filesystem;

namespace {

// How it ends, with this machine in place of a guest.
int run(std::vector<std::string> argv) {
    const base::Descriptor nowhere{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    return cli::end_of(cli::start(nowhere.get(), nowhere.get(), [&] {
        (void)::dup2(nowhere.get(), STDERR_FILENO);
        std::vector<char*> words;
        words.reserve(argv.size() + 1);
        for (auto& word : argv) words.push_back(word.data());
        words.push_back(nullptr);
        ::execv(words.front(), words.data());
        throw std::runtime_error{"no such program"};
    }));
}

unsigned mode_of(const std::string& path) {
    struct stat info{};
    REQUIRE(::lstat(path.c_str(), &info) == 0);
    return info.st_mode & 07777U;
}

struct Scene {
    fakes::ScratchFolder folder;
    // A name that a shell could stumble over.
    static constexpr auto name = "-a 'file'";
    UploadPlace place = upload_place(folder.path(name), "0123456789abcdef", "fedcba9876543210");

    void begin() {
        REQUIRE(run(make_upload_folder(place)) == 0);
        (void)folder.write(".ghost-0123456789abcdef/fedcba9876543210", "new");
        fs::permissions(place.draft(), fs::perms{0666});  // as a guest agent makes files
    }
};

}  // namespace

TEST_CASE("an upload's bytes are where nobody else gets, until they take the file's place") {
    Scene scene;
    (void)scene.folder.write(Scene::name, "old");
    scene.begin();
    CHECK(fs::path{scene.place.folder}.parent_path() == fs::path{scene.place.path}.parent_path());
    CHECK(mode_of(scene.place.folder) == 0700);
    CHECK(run(set_upload_mode(scene.place, 0640)) == 0);
    CHECK(mode_of(scene.place.draft()) == 0640);
    CHECK(scene.folder.read(Scene::name) == "old");
    CHECK(run(finish_upload(scene.place)) == 0);
    CHECK(scene.folder.read(Scene::name) == "new");
    CHECK(mode_of(scene.place.path) == 0640);
    CHECK_FALSE(fs::exists(scene.place.folder));
}

TEST_CASE("an upload into the root directory is beside it as well") {
    CHECK(upload_place("/motd", "1", "2").draft() == "/.ghost-1/2");
}

TEST_CASE("an upload that is given up leaves nothing") {
    Scene scene;
    scene.begin();
    CHECK(run(remove_upload(scene.place)) == 0);
    CHECK_FALSE(fs::exists(scene.place.folder));
    // Also when its file was never made.
    REQUIRE(run(make_upload_folder(scene.place)) == 0);
    CHECK(run(remove_upload(scene.place)) == 0);
    CHECK_FALSE(fs::exists(scene.place.folder));
}

TEST_CASE("no upload begins where there is a directory, or none for it") {
    Scene scene;
    fs::create_directory(scene.place.path);
    CHECK(run(make_upload_folder(scene.place)) == is_a_directory);
    CHECK_FALSE(fs::exists(scene.place.folder));
    const auto nowhere = upload_place(scene.folder.path("no/such"), "1", "2");
    const auto end = run(make_upload_folder(nowhere));
    CHECK(end != 0);
    CHECK(end != is_a_directory);
}

TEST_CASE("a link in the place of an upload's file isn't followed") {
    Scene scene;
    const auto secret = scene.folder.write("secret", "secret");
    fs::permissions(secret, fs::perms{0600});
    scene.begin();
    // As whoever may write to the directory could do.
    fs::rename(scene.place.folder, scene.folder.path("away"));
    fs::create_directory(scene.place.folder);
    fs::permissions(scene.place.folder, fs::perms{0777});
    fs::create_symlink(secret, scene.place.draft());
    CHECK(run(set_upload_mode(scene.place, 0644)) != 0);
    CHECK(mode_of(secret) == 0600);
}
