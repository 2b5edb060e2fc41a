// Which pages of a browser a request comes from.
#pragma once

#include "net/http.hpp"

namespace ghost::agent::api {

// A browser sends the client certificate along with whatever page asks for, and lets every page send forms and open
// WebSockets: only pages that came from here may change anything. True as well for who is no browser and names no
// origin.
[[nodiscard]] bool from_own_page(const net::Request& request);

}  // namespace ghost::agent::api
