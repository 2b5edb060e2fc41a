#include "heartbeat/state_view.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

namespace json = boost::json;
using ghost::heartbeat::StateView;

namespace {

json::object vm(std::string_view id, std::string_view power = "running") { return {{"id", id}, {"power", power}}; }

json::object resources(double allocated, double load, std::int64_t free_disk) {
    return {{"cpus", json::object{{"total", 8.0}, {"reserved", 1.0}, {"allocated", allocated}, {"free", 7.0}}},
            {"disk_bytes", json::object{{"total", 1'000'000'000}, {"free", free_disk}}},
            {"load", json::object{{"1m", load}, {"5m", 0.1}, {"15m", 0.1}}},
            {"power", json::object{{"source", "ac"}, {"battery_percent", nullptr}}}};
}

// "full:[a,b]/[c]" of what is told.
std::string told(const StateView& view) {
    const auto delta = view.delta();
    if (!delta) return "nothing";
    std::string text = delta->at("full").as_bool() ? "full:[" : "[";
    for (const auto& item : delta->at("vms").at("upsert").as_array())
        text += std::string{item.at("id").as_string()} + ",";
    text += "]/[";
    for (const auto& id : delta->at("vms").at("remove").as_array()) text += std::string{id.as_string()} + ",";
    text += "]";
    if (delta->contains("resources")) text += "+resources";
    return text;
}

// One that Core has everything of.
StateView settled() {
    StateView view;
    view.put_vm("a", vm("a"));
    view.put_vm("b", vm("b"));
    (void)view.set_resources(resources(1, 0.1, 500'000'000));
    view.ack(view.rev(), true);
    return view;
}

}  // namespace

TEST_CASE("a session begins with everything", "[heartbeat]") {
    StateView view;
    CHECK(told(view) == "full:[]/[]");
    view.put_vm("a", vm("a"));
    (void)view.set_resources(resources(1, 0.1, 1));
    CHECK(told(view) == "full:[a,]/[]+resources");
    view.ack(view.rev(), true);
    CHECK(told(view) == "nothing");
    CHECK_FALSE(view.wants_full());
    view.start_over();
    CHECK(told(view) == "full:[a,]/[]+resources");
}

TEST_CASE("only what Core hasn't acknowledged travels", "[heartbeat]") {
    auto view = settled();
    CHECK(view.put_vm("a", vm("a", "off")));
    const auto first = view.rev();
    CHECK(told(view) == "[a,]/[]");
    CHECK(view.put_vm("c", vm("c")));
    CHECK(view.remove_vm("b"));
    CHECK(told(view) == "[a,c,]/[b,]");
    view.ack(first, false);
    CHECK(told(view) == "[c,]/[b,]");
    view.ack(view.rev(), false);
    CHECK(told(view) == "nothing");
}

TEST_CASE("what stays as it is, is no news", "[heartbeat]") {
    auto view = settled();
    const auto before = view.rev();
    CHECK_FALSE(view.put_vm("a", vm("a")));
    CHECK_FALSE(view.remove_vm("z"));
    CHECK(view.rev() == before);
    CHECK(told(view) == "nothing");
}

TEST_CASE("a VM that comes back isn't removed", "[heartbeat]") {
    auto view = settled();
    view.remove_vm("a");
    view.put_vm("a", vm("a"));
    CHECK(told(view) == "[a,]/[]");
    view.remove_vm("a");
    CHECK(told(view) == "[]/[a,]");
}

TEST_CASE("a Core that lost what it had is told everything", "[heartbeat]") {
    auto view = settled();
    SECTION("it says less than it once had") { view.ack(view.rev() - 1, false); }
    SECTION("it says more than there is") { view.ack(view.rev() + 1, false); }
    CHECK(told(view) == "full:[a,b,]/[]+resources");
    CHECK(view.acked() == 0);
    view.ack(view.rev(), false);  // an answer to a beat that was no full one
    CHECK(view.wants_full());
    view.ack(view.rev(), true);
    CHECK(told(view) == "nothing");
}

TEST_CASE("a full sync that was asked for while another was under way is still to come", "[heartbeat]") {
    auto view = settled();
    view.want_full();
    const auto sent = view.rev();
    view.put_vm("c", vm("c"));
    view.want_full();
    view.ack(sent, true);
    CHECK(view.wants_full());
    view.ack(view.rev(), true);
    CHECK_FALSE(view.wants_full());
}

TEST_CASE("figures that drift wait for the next beat, what VMs hold doesn't", "[heartbeat]") {
    auto view = settled();
    const auto before = view.rev();
    SECTION("a little more load, a little less disk") {
        CHECK_FALSE(view.set_resources(resources(1, 0.4, 490'000'000)));
        CHECK(view.rev() == before);
    }
    SECTION("much more load") {
        CHECK_FALSE(view.set_resources(resources(1, 3, 500'000'000)));
        CHECK(told(view) == "[]/[]+resources");
    }
    SECTION("much less disk") {
        CHECK_FALSE(view.set_resources(resources(1, 0.1, 300'000'000)));
        CHECK(told(view) == "[]/[]+resources");
    }
    SECTION("a VM got a CPU") {
        CHECK(view.set_resources(resources(2, 0.1, 500'000'000)));
        CHECK(told(view) == "[]/[]+resources");
    }
    SECTION("the plug was pulled") {
        auto now = resources(1, 0.1, 500'000'000);
        now["power"] = json::object{{"source", "battery"}, {"battery_percent", 80}};
        CHECK(view.set_resources(now));
    }
}

TEST_CASE("more removals than are remembered come to a full sync", "[heartbeat]") {
    auto view = settled();
    for (std::size_t i = 0; i <= StateView::max_removed; ++i) {
        const auto id = std::to_string(i);
        view.put_vm(id, vm(id));
        view.remove_vm(id);
    }
    CHECK(told(view) == "full:[a,b,]/[]+resources");
}
