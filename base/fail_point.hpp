// Named places where a test kills the program, to see what the next start makes
// of what it left.
#pragma once

#include <string_view>

namespace ghost::base {

// In test builds (GHOST_FAIL_POINTS) ends the process with SIGKILL when the environment's GHOST_FAIL_POINT is `name`,
// and writes `name` to the file that GHOST_FAIL_POINT_LOG names, so that a test learns which there are. Elsewhere
// nothing.
void fail_point(std::string_view name);

}  // namespace ghost::base
