// Image files made by the real qemu-img, for tests.
#pragma once

#include <catch2/catch.hpp>

#include <cstdlib>
#include <string>

inline void qemu_img(const std::string& arguments) {
    REQUIRE(std::system(("qemu-img " + arguments + " > /dev/null").c_str()) == 0);  // NOLINT(concurrency-mt-unsafe)
}
