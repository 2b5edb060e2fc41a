#include "base/error.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace ghost::base;

TEST_CASE("an error survives being journalled with its faults and facts") {
    Error error{Errc::insufficient_resources, "does not fit"};
    error.faults = {{"/spec/vcpus", "must be at most 4"}, {"/name", "is taken"}};
    error.facts = {{"needed", {{"vcpus", 8}}}, {"free", {{"vcpus", 4}}}};

    const auto back = error_from_json(to_json(error));

    CHECK(back.code == Errc::insufficient_resources);
    CHECK(back.detail == "does not fit");
    REQUIRE(back.faults.size() == 2);
    CHECK(back.faults[0].pointer == "/spec/vcpus");
    CHECK(back.faults[1].detail == "is taken");
    CHECK(back.facts == error.facts);
}

TEST_CASE("a plain error is journalled without empty members") {
    const auto document = to_json(Error{Errc::not_found, "no such VM"});
    CHECK(document.size() == 2);
    CHECK(document.at("code") == "not_found");
}

TEST_CASE("a journalled error of a code unknown here, or damaged, reads as internal") {
    CHECK(error_from_json({{"code", "from_the_future"}, {"detail", "d"}}).code == Errc::internal);
    const auto odd = error_from_json({{"code", 7}, {"errors", "none"}, {"facts", 1}});
    CHECK(odd.code == Errc::internal);
    CHECK(odd.detail.empty());
    CHECK(odd.faults.empty());
    CHECK(odd.facts.empty());
}

TEST_CASE("every code has a name of its own that leads back to it") {
    for (unsigned i = 0; i <= static_cast<unsigned>(Errc::internal); ++i) {
        const auto code = static_cast<Errc>(i);
        CHECK(errc_from_name(name_of(code)) == code);
    }
    CHECK_FALSE(errc_from_name("nothing_of_ours"));
}

TEST_CASE("a full disk is told apart from other faults of the system") {
    CHECK(errno_error(ENOSPC, "write").code == Errc::insufficient_storage);
    CHECK(errno_error(EDQUOT, "write").code == Errc::insufficient_storage);
    const auto missing = errno_error(ENOENT, "cannot open /x");
    CHECK(missing.code == Errc::io_error);
    CHECK(missing.detail == "cannot open /x: No such file or directory");
}
