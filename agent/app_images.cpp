// What images need of the rest: room on the disk, who stands on them, and care.
#include "agent/app.hpp"
#include "agent/images/refresh_schedule.hpp"
#include "base/cancelled.hpp"
#include "base/ids.hpp"

#include <charconv>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::hours tidy_interval{1};
constexpr std::chrono::minutes trim_interval{1};
constexpr std::string_view refresh_fact = "images_refresh_at";  // in the database: milliseconds since the epoch
constexpr std::chrono::minutes refresh_look{10};                // a wall clock may jump, so it is looked at
constexpr std::chrono::hours refresh_limit{24};                 // for one image; the next doesn't wait for ever

std::optional<base::Wall> time_of(std::string_view fact) {
    std::int64_t ms = 0;
    const auto [at, fault] = std::from_chars(fact.data(), fact.data() + fact.size(), ms);
    return fault == std::errc{} && at == fact.data() + fact.size() ? std::optional{base::from_unix_ms(ms)}
                                                                   : std::nullopt;
}

}  // namespace

void App::connect_images() {
    images_.room = [this](std::string name, std::uint64_t bytes) {
        return cache_room_.hold(std::move(name), bytes, disks_dir_);
    };
    images_.room_used = [this](std::string name) { return image_room_used(std::move(name)); };
    images_.files_in_use = [this] { return chains_.files_in_use(disks_dir_); };
    images_.domains_known = [this](base::Duration limit) { return domains_known(limit); };
    images_.shares_the_disks_place = [this] { return cache_room_.shares_the_disks_place(disks_dir_); };
    images_.owner_lacks = [this] { return owner_lacks(); };
    images_.on_change = [this](const std::string& name) { announcer_.image(name); };
}

// Held until the disk has been measured with it.
asio::awaitable<void> App::image_room_used(std::string name) {
    (void)co_await disk_watch_.measure();
    cache_room_.release(name);
}

asio::awaitable<void> App::domains_known(base::Duration limit) {
    const auto now = s_.clock.now();
    const auto end = limit < base::Instant::max() - now ? now + limit : base::Instant::max();
    while (!observer_.synced() && !stopping_ && s_.clock.now() < end) {
        co_await observer_.synced_changed().wait_until(s_.clock, end);
        if (co_await base::is_cancelled()) co_return;
    }
}

// What the cache takes of the owner's share of the disk; elsewhere it takes none.
asio::awaitable<std::uint64_t> App::owner_lacks() {
    if (!co_await cache_room_.shares_the_disks_place(disks_dir_)) co_return 0;
    if (const auto measured = co_await disk_watch_.measure(); !measured) co_return 0;
    const auto free = disk_watch_.space().free;
    const auto reserved = capacity_.reserve().disk_bytes;
    co_return reserved > free ? reserved - free : 0;
}

asio::awaitable<void> App::look_after_images() {
    co_await domains_known(base::Duration::max());
    co_await images_.tidy();
    auto next_tidy = s_.clock.now() + tidy_interval;
    while (co_await s_.clock.sleep_for(trim_interval)) {
        co_await images_.trim();
        if (s_.clock.now() < next_tidy) continue;
        co_await images_.tidy();
        next_tidy = s_.clock.now() + tidy_interval;
    }
}

void App::restore_refresh(const std::map<std::string, std::string>& facts) {
    const auto now = s_.clock.wall();
    const auto kept = facts.find(std::string{refresh_fact});
    const auto time = kept == facts.end() ? std::nullopt : time_of(kept->second);
    next_refresh_ = time ? kept_refresh(*time, now, s_.random) : first_refresh(now, s_.random);
    refresh_is_kept_ = time == next_refresh_;
}

asio::awaitable<void> App::keep_refresh_time() {
    storage::Changes changes;
    changes.emplace_back(storage::FactRow{std::string{refresh_fact}, std::to_string(base::to_unix_ms(next_refresh_))});
    const auto kept = co_await s_.store.commit(std::move(changes));
    refresh_is_kept_ = kept.has_value();
    if (!kept) s_.log.warn("when images are refreshed next can't be kept", {{"error", kept.error().detail}});
}

asio::awaitable<void> App::refresh_images_weekly() {
    if (!config_.images.refresh_weekly) co_return;
    if (!refresh_is_kept_) co_await keep_refresh_time();
    while (co_await s_.clock.sleep_for(refresh_look)) {
        if (s_.clock.wall() < next_refresh_) continue;
        // Before it, so that an agent that dies of it doesn't begin with it again.
        next_refresh_ = next_refresh(s_.clock.wall(), s_.random);
        co_await keep_refresh_time();
        std::vector<std::string> names;
        for (const auto& [name, image] : images_.all())
            if (image.state == ImageState::available && config_.images.catalogue.contains(image.source))
                names.push_back(name);
        for (const auto& name : names) co_await refresh_image(name);
    }
}

asio::awaitable<void> App::refresh_image(std::string name) {
    const base::Context context{base::make_uuid(s_.clock, s_.random), base::make_traceparent(s_.random),
                                base::Principal::of_agent()};
    const auto begun = co_await images_.refresh(context, name);
    const auto ended = begun ? co_await operations_.wait((*begun)->id, refresh_limit) : nullptr;
    const auto* error = !begun ? &begun.error() : ended && ended->error ? &*ended->error : nullptr;
    if (error != nullptr) s_.log.warn("an image can't be refreshed", {{"image", name}, {"error", error->detail}});
}

}  // namespace ghost::agent
