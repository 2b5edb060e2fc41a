#include "agent/guest/upload_tools.hpp"

#include <fmt/format.h>

namespace ghost::agent {
namespace {

std::vector<std::string> script(std::string text, std::string name, std::vector<std::string> arguments) {
    std::vector<std::string> argv{"/bin/sh", "-c", std::move(text), std::move(name)};
    for (auto& argument : arguments) argv.push_back(std::move(argument));
    return argv;
}

}  // namespace

UploadPlace upload_place(const std::string& path, const std::string& first, const std::string& second) {
    return {.path = path, .folder = path.substr(0, path.rfind('/')) + "/.ghost-" + first, .name = second};
}

std::vector<std::string> make_upload_folder(const UploadPlace& place) {
    // Into a directory the file would be moved, instead of in its place.
    return script(fmt::format(R"([ ! -d "$1" ] || exit {}; exec mkdir -m 700 -- "$2")", is_a_directory),
                  "ghost-upload-make", {place.path, place.folder});
}

std::vector<std::string> set_upload_mode(const UploadPlace& place, unsigned mode) {
    // From within, where nothing changes under it; a link in another's directory would be followed.
    return script(R"(cd -P -- "$1" || exit 1
[ -O . ] && case $(stat -c %a .) in *700) exec chmod "$3" "$2" ;; esac
echo "$1 was replaced by another program" >&2
exit 1)",
                  "ghost-upload-mode", {place.folder, place.name, fmt::format("{:04o}", mode)});
}

std::vector<std::string> finish_upload(const UploadPlace& place) {
    // On disk before it takes the old one's place, where the guest can do that.
    return script(R"(sync -- "$2" 2>/dev/null
mv -f -- "$2" "$3" || exit 1
rmdir -- "$1" 2>/dev/null
exit 0)",
                  "ghost-upload-finish", {place.folder, place.draft(), place.path});
}

std::vector<std::string> remove_upload(const UploadPlace& place) {
    return script(R"(rm -f -- "$2"; exec rmdir -- "$1")", "ghost-upload-remove", {place.folder, place.draft()});
}

}  // namespace ghost::agent
