#include "agent/config/catalogue_reader.hpp"
#include "config_folder.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace ghost;
using namespace ghost::agent;
using test::ConfigFolder;

namespace {

std::optional<std::string> keyring(const std::string& name) {
    return name == "text.asc" ? std::optional{std::string{"-----BEGIN PGP PUBLIC KEY BLOCK-----"}} : std::nullopt;
}

struct Read {
    Catalogue catalogue;
    std::vector<std::string> faults;
};
Read read(const std::string& yaml, std::string_view architecture = "x86_64") {
    FaultList faults;
    const auto layer = read_yaml(yaml, "mine.yaml", 1, faults);
    auto catalogue = read_catalogue(layer, architecture, &keyring, faults);
    return {std::move(catalogue), faults.sentences()};
}

}  // namespace

TEST_CASE("the built-in catalogue is sound for both architectures, and each image is proven") {
    for (const auto* architecture : {"x86_64", "aarch64"}) {
        CAPTURE(architecture);
        FaultList faults;
        const auto layer = read_yaml(std::string{built_in_catalogue()}, "catalogue.yaml", 0, faults);
        const auto keys = [](const std::string& name) -> std::optional<std::string> {
            if (name == "ubuntu-cloudimage.gpg") return std::string{ubuntu_keyring()};
            return std::nullopt;
        };
        const auto catalogue = read_catalogue(layer, architecture, keys, faults);
        CHECK(faults.sentences() == std::vector<std::string>{});
        for (const auto* name : {"ubuntu-24.04", "ubuntu-22.04", "ubuntu-20.04", "debian-13", "debian-12", "debian-11",
                                 "centos-stream-9"}) {
            CAPTURE(name);
            REQUIRE(catalogue.contains(name));
            const auto& image = catalogue.at(name);
            CHECK(image.architecture == architecture);
            CHECK_FALSE(image.description.empty());
            CHECK_FALSE(image.user.empty());
            CHECK(image.checksums.starts_with("https://"));
            // The list lies beside the image.
            CHECK(image.checksums.substr(0, image.checksums.rfind('/')) == image.url.substr(0, image.url.rfind('/')));
            CHECK(image.url.find(architecture == std::string{"x86_64"} ? "arm64" : "amd64") == std::string::npos);
            if (std::string{name}.starts_with("ubuntu")) CHECK_FALSE(image.keyring.empty());
        }
    }
}

TEST_CASE("a catalogue's entry is read whole") {
    const auto good = read(
        "images:\n  mine:\n    description: Mine\n    user: me\n    amd64:\n      url: https://a.example/i.qcow2\n"
        "      mirrors: [https://b.example/i.qcow2]\n      checksum: sha256:" +
        std::string(64, 'a') + "\n");
    CHECK(good.faults.empty());
    REQUIRE(good.catalogue.contains("mine"));
    const auto& image = good.catalogue.at("mine");
    CHECK(image.description == "Mine");
    CHECK(image.mirrors == std::vector<std::string>{"https://b.example/i.qcow2"});
    CHECK(read("images: {mine: {arm64: {url: 'https://a.example/i', checksums: 'https://a.example/s'}}}")
              .catalogue.empty());
    CHECK(read("images: {gone: }").faults.empty());
}

TEST_CASE("each fault of a catalogue is told with its place and what is allowed") {
    const auto one = [](const std::string& source) {
        const auto bad = read("images:\n  mine:\n    amd64: {" + source + "}\n");
        INFO(source);
        REQUIRE(bad.faults.size() == 1);
        CHECK(bad.faults.front().starts_with("mine.yaml:3: images.mine.amd64"));
        return bad.faults.front();
    };
    const std::string proof = ", checksums: 'https://a.example/s'";
    CHECK_THAT(one("url: 'http://a.example/i'" + proof), Catch::Contains("https://"));
    CHECK_THAT(one("checksums: 'https://a.example/s'"), Catch::Contains("url is missing"));
    CHECK_THAT(one("url: 'https://a.example/i'"), Catch::Contains("nothing else proves the image"));
    CHECK_THAT(one("url: 'https://a.example/i', checksum: 'md5:1'"), Catch::Contains("sha256:<64 hex digits>"));
    CHECK_THAT(one("url: 'https://a.example/i', signature: 'https://a.example/g'" + proof),
               Catch::Contains("stand together"));
    CHECK_THAT(one("url: 'https://a.example/i', signature: 'https://a.example/g', keyring: none.gpg" + proof),
               Catch::Contains("there is no keyring none.gpg"));
    CHECK_THAT(one("url: 'https://a.example/i', checksum: ''"), Catch::Contains("nothing else proves the image"));
    CHECK_THAT(one("url: 'https://a.example/i', signature: 'https://a.example/g', keyring: text.asc" + proof),
               Catch::Contains("gpg --dearmor"));
    CHECK_THAT(one("url: 'https://a.example/i', mirror: x" + proof), Catch::Contains("expected url, mirrors"));
    CHECK_THAT(one("url: 'https://a.example/i', mirrors: x" + proof), Catch::Contains("expected a list"));
    CHECK_THAT(read("images: {'a b': {}}").faults.at(0), Catch::Contains("expected a name"));
    CHECK_THAT(read("image: {}").faults.at(0), Catch::Contains("expected images"));
}

TEST_CASE_METHOD(ConfigFolder, "files in images.d lie over the built-in catalogue") {
    const auto built_in = sound("").images.catalogue;
    CHECK(built_in.contains("debian-12"));
    write("images.d/10-mine.yaml",
          "images:\n  debian-11:\n  debian-12:\n    amd64: {mirrors: ['https://near.example/d.qcow2']}\n"
          "    arm64: {mirrors: ['https://near.example/d.qcow2']}\n");
    const auto mine = sound("").images.catalogue;
    CHECK_FALSE(mine.contains("debian-11"));
    CHECK(mine.at("debian-12").mirrors.size() == 1);
    CHECK(mine.at("debian-12").url == built_in.at("debian-12").url);
    write("images.d/20-bad.yaml", "images:\n  x: 7\n");
    CHECK_THAT(faults("").at(0), Catch::StartsWith("images.d/20-bad.yaml:2: images.x"));
}
