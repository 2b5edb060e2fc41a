// What is run in a guest, as root, around an upload: its bytes go into a file
// in a directory that only root enters, beside the one that they are for.
#pragma once

#include <string>
#include <vector>

namespace ghost::agent {

// Of an upload, where it goes. Whoever may write to the target's directory can put something else in the place of
// `folder` at any time; `name` is known to nobody before the file is there.
struct UploadPlace {
    std::string path;    // the target's
    std::string folder;  // beside it: "/etc/.ghost-1f..."
    std::string name;    // in the folder

    [[nodiscard]] std::string draft() const { return folder + '/' + name; }
};
// `first` and `second`: sixteen hexadecimal digits that nobody can guess.
[[nodiscard]] UploadPlace upload_place(const std::string& path, const std::string& first, const std::string& second);

// The commands, for any POSIX shell with coreutils or busybox. They end with 0 when all is well; else they say why.
inline constexpr int is_a_directory = 66;  // how making the folder ends then
[[nodiscard]] std::vector<std::string> make_upload_folder(const UploadPlace& place);
// Of the file in the folder, which has to be root's alone still.
[[nodiscard]] std::vector<std::string> set_upload_mode(const UploadPlace& place, unsigned mode);
[[nodiscard]] std::vector<std::string> finish_upload(const UploadPlace& place);
[[nodiscard]] std::vector<std::string> remove_upload(const UploadPlace& place);

}  // namespace ghost::agent
