// Lets Catch2 print what a Result holds: "ok", or the error's code and words.
#pragma once

#include "base/error.hpp"

#include <catch2/catch.hpp>

#include <string>

namespace Catch {

template <class T>
struct StringMaker<ghost::base::Result<T>> {
    static std::string convert(const ghost::base::Result<T>& result) {
        if (result) return "ok";
        return std::string{ghost::base::name_of(result.error().code)} + ": " + result.error().detail;
    }
};

}  // namespace Catch
