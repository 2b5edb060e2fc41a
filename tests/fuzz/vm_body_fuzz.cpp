// The bodies of changes: whatever comes, it is read or refused with faults, and what is read survives its document.
#include "agent/images/image.hpp"
#include "agent/images/image_request.hpp"
#include "agent/json_reader.hpp"
#include "agent/operations/operation.hpp"
#include "agent/vm/vm_document.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

using namespace ghost::agent;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    (void)vm_from_document(text);
    (void)image_from_document(text);
    (void)operation_from_document(text);
    const auto body = parse_json(text);
    if (!body) return 0;
    static const Catalogue catalogue{{"debian-12", {}}};
    if (const auto add = read_add_image(*body, catalogue)) {
        const auto back = add_image_from_json(to_json(*add));
        if (back.name != add->name || back.source != add->source || back.checksum != add->checksum) std::abort();
    }
    const auto create = read_create(*body, {});
    if (!create && create.error().faults.empty()) std::abort();
    Vm vm;
    vm.id = "0198a7a0-0000-7000-8000-000000000000";
    if (create) {
        vm.name = create->name;
        vm.owner = create->owner;
        vm.labels = create->labels;
        vm.spec = create->spec;
        const auto back = vm_from_document(to_document(vm));
        if (!back || to_document(*back) != to_document(vm)) std::abort();
    }
    (void)read_patch(*body, vm);
    return 0;
}
