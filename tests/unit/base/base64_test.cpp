#include "base/base64.hpp"

#include <catch2/catch.hpp>

#include <string>

using ghost::base::from_base64;
using ghost::base::to_base64;
using ghost::base::to_base64url;

TEST_CASE("bytes become Base64 and come back") {
    // RFC 4648, section 10.
    const std::string text = "foobar";
    const std::string encoded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (std::size_t length = 0; length <= text.size(); ++length) {
        CHECK(to_base64(text.substr(0, length)) == encoded[length]);
        CHECK(from_base64(encoded[length], 100) == text.substr(0, length));
    }
    std::string all;
    for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
    CHECK(from_base64(to_base64(all), 256) == all);
    CHECK(to_base64("\xfb\xff\xbf") == "+/+/");
    CHECK(to_base64url("\xfb\xff\xbf") == "-_-_");
    CHECK(to_base64url("\xfb\xff\xbf"
                       "f") == "-_-_Zg");
}

TEST_CASE("what isn't Base64 ends it, and no more is read than was asked for") {
    CHECK(from_base64("Zm9v\nYmFy", 100) == "foo");
    CHECK(from_base64("Zm9v-_==", 100) == "foo");
    CHECK(from_base64("Z", 100).empty());
    CHECK(from_base64("Zm9vYmFy", 4) == "foob");
    CHECK(from_base64("Zm9vYmFy", 0).empty());
}
