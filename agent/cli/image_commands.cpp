#include "agent/cli/commands.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <memory>

namespace ghost::cli {
namespace {

struct ImageWords {
    std::string name;
    std::string file;
    std::string source;
    std::string checksum;
    std::string format;
    bool allow_unverified = false;
    Waiting waiting;
};

struct PruneWords {
    bool yes = false;
    Waiting waiting;
};

struct ListWords {
    bool remote = false;
};

// "/srv/a b.img" as file:///srv/a%20b.img.
std::string file_url(const std::string& path) {
    std::string out = "file://";
    for (std::string_view rest = path; !rest.empty();) {
        const auto slash = rest.find('/');
        out += net::percent_encode(rest.substr(0, slash));
        if (slash == std::string_view::npos) break;
        out += '/';
        rest.remove_prefix(slash + 1);
    }
    return out;
}

Change add_of(const ImageWords& words, const Surroundings& surroundings) {
    auto source = words.file.empty() ? words.source : file_url(surroundings.absolute(words.file));
    if (source.empty()) source = words.name;  // of the catalogue
    if (source.empty()) usage_fault("say what to add: a NAME of the catalogue, --file PATH or --source URL");
    boost::json::object body{{"source", source}};
    if (words.allow_unverified) body["allow_unverified"] = true;
    if (!words.name.empty() && words.name != source) body["name"] = words.name;
    if (!words.checksum.empty()) {
        if (!words.checksum.starts_with("sha256:") && !words.checksum.starts_with("sha512:"))
            usage_fault(fmt::format("--checksum '{}': expected sha256:HEX or sha512:HEX", printable(words.checksum)));
        body["checksum"] = words.checksum;
    }
    if (!words.format.empty()) body["format"] = words.format;
    const auto& known_as = words.name.empty() ? source : words.name;
    auto change = change_of({View::image, "/v1/images", known_as}, "added", words.waiting);
    change.body = boost::json::serialize(body);
    return change;
}

void add_add(CLI::App& image, Grammar grammar) {
    auto words = std::make_shared<ImageWords>();
    auto& command = *image.add_subcommand("add", "Fetch or copy an image into the agent's cache, and check it");
    command
        .add_option("name", words->name,
                    "What to call it [the file's name without its suffix]; alone, one of the catalogue")
        ->type_name("NAME");
    auto* file = command.add_option("--file", words->file, "An image file on the agent's machine")->type_name("PATH");
    command.add_option("--source", words->source, "Where it is: https://..., file:///PATH, or a name of the catalogue")
        ->type_name("URL")
        ->excludes(file);
    command.add_option("--checksum", words->checksum, "What the file must hash to")->type_name("sha256:HEX");
    command.add_option("--format", words->format, "qcow2 is recognised; raw must be said")
        ->type_name("qcow2|raw")
        ->check(CLI::IsMember({"qcow2", "raw"}));
    command.add_flag("--allow-unverified", words->allow_unverified, "Take it though nothing proves it");
    add_waiting(command, words->waiting);
    command.final_callback([words, grammar] { grammar.invocation.action = add_of(*words, grammar.surroundings); });
}

void add_delete(CLI::App& image, Grammar grammar) {
    auto words = std::make_shared<ImageWords>();
    auto& command = *image.add_subcommand("delete", "Delete an image that no VM uses");
    command.add_option("name", words->name, "Name of the image")->required()->type_name("NAME");
    add_waiting(command, words->waiting);
    command.final_callback([words, grammar] {
        auto change =
            change_of({View::image, target_of("images", words->name), words->name}, "deleted", words->waiting);
        change.method = net::Method::del;
        grammar.invocation.action = std::move(change);
    });
}

void add_refresh(CLI::App& image, Grammar grammar) {
    auto words = std::make_shared<ImageWords>();
    auto& command = *image.add_subcommand("refresh", "Fetch what the image's source has now, if it is another");
    command.add_option("name", words->name, "Name of the image")->required()->type_name("NAME");
    add_waiting(command, words->waiting);
    command.footer("VMs keep what they were made of.");
    command.final_callback([words, grammar] {
        const auto target = fmt::format("{}/refresh", target_of("images", words->name));
        grammar.invocation.action = change_of({View::image, target, words->name}, "refreshed", words->waiting);
    });
}

void add_prune(CLI::App& image, Grammar grammar) {
    auto words = std::make_shared<PruneWords>();
    auto& command = *image.add_subcommand(
        "prune", "Delete images that nobody uses and that can be fetched again; --dry-run only says which");
    command.add_flag("-y,--yes", words->yes, "Don't ask");
    add_waiting(command, words->waiting);
    command.footer("On a terminal it asks first. Elsewhere it prunes only with --yes.");
    command.final_callback([words, grammar] {
        auto change = change_of({View::image, "/v1/image-cache/prune", {}}, "pruned", words->waiting);
        change.subject = "images";
        if (!words->yes) change.question = "Delete all images that nobody uses and that can be fetched again?";
        grammar.invocation.action = std::move(change);
    });
}

void add_list(CLI::App& image, Grammar grammar) {
    auto words = std::make_shared<ListWords>();
    auto& command = *image.add_subcommand("list", "All images; with --remote those that can be fetched by name");
    command.add_flag("--remote", words->remote, "What the catalogue knows");
    command.final_callback([words, grammar] {
        grammar.invocation.action =
            words->remote ? ShowList{"/v1/images?remote=true", View::catalogue} : ShowList{"/v1/images", View::image};
    });
}

}  // namespace

void add_image_commands(CLI::App& app, Grammar grammar) {
    auto& image = *app.add_subcommand("image", "Images that VMs are made from");
    image.require_subcommand(1);
    add_list(image, grammar);
    auto words = std::make_shared<ImageWords>();
    auto& show = *image.add_subcommand("show", "One image");
    show.add_option("name", words->name, "Name of the image")->required()->type_name("NAME");
    show.final_callback(
        [words, grammar] { grammar.invocation.action = ShowOne{target_of("images", words->name), View::image}; });
    add_add(image, grammar);
    add_refresh(image, grammar);
    add_delete(image, grammar);
    add_prune(image, grammar);
}

}  // namespace ghost::cli
