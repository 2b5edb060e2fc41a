#include "base/context.hpp"

namespace ghost::base {

std::string Principal::text() const {
    switch (kind) {
        case Kind::anonymous: return "anonymous";
        case Kind::socket: return "socket:" + name;
        case Kind::certificate: return "certificate:" + name;
        case Kind::core: return "core:" + name;
        case Kind::agent: return "agent";
    }
    return "anonymous";
}

}  // namespace ghost::base
