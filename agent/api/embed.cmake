# Writes OUTPUT, a C++ file whose openapi_yaml() returns the text of INPUT.
file(READ "${INPUT}" text HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${text}")
string(REGEX REPLACE "((0x..,){32})" "\\1\n" bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include \"agent/api/openapi.hpp\"

namespace {
constexpr unsigned char text[] = {
${bytes}
};
}  // namespace

namespace ghost::agent::api {
std::string_view openapi_yaml() { return {reinterpret_cast<const char*>(text), sizeof text}; }
}  // namespace ghost::agent::api
")
