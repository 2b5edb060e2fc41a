#include "virt/domain_xml.hpp"

#include <catch2/catch.hpp>
#include <pugixml.hpp>

#include <string>
#include <vector>

using namespace ghost;
using virt::domain_xml;
using virt::DomainSpec;
using virt::Machine;
using virt::parse_domain_xml;
using virt::resized_domain_xml;

namespace {

const Machine kvm_pc{"kvm", "x86_64", "q35", "host-passthrough"};
const Machine emulated_pc{"qemu", "x86_64", "q35", "maximum"};
const Machine arm{"qemu", "aarch64", "virt", "maximum"};
const Machine mock{"test", "x86_64", "", ""};

DomainSpec sample() {
    return {
        .uuid = "0198a000-0000-7000-8000-000000000001",
        .name = "web-1",
        .vcpus = 3,
        .memory_mib = 1536,
        .firmware = virt::Firmware::bios,
        .autostart = false,
        .disks = {{"root", "/pool/web-1.qcow2", "/images/debian.qcow2", "qcow2"}, {"data", "/pool/data.qcow2", "", ""}},
        .seed_path = "/pool/web-1.iso",
        .nics = {{"eth0", "default", "52:54:00:01:02:03"}},
        .console_log = "/log/web-1.log",
        .record = R"({"owner":"alice"})"};
}

struct Parsed {
    explicit Parsed(const base::Result<std::string>& xml) {
        REQUIRE(xml.has_value());
        REQUIRE(document.load_string(xml->c_str()));
        root = document.document_element();
    }
    [[nodiscard]] std::string at(const char* path) const {
        const auto found = document.select_node(path);
        return found.attribute() ? found.attribute().value() : found.node().text().get();
    }
    [[nodiscard]] std::size_t count(const char* path) const { return document.select_nodes(path).size(); }
    pugi::xml_document document;
    pugi::xml_node root;
};

const char* const made_by_virt_manager = R"(<domain type='kvm' id='7'>
  <name>debian12 "alt"</name>
  <uuid>9d0cb6f3-1a68-4b5b-a3f5-4fb0e2dbd0a7</uuid>
  <title>Old &amp; trusted</title>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static' current='2'>8</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='5' cpuset='1'/></cputune>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram>/var/lib/libvirt/qemu/nvram/debian12_VARS.fd</nvram></os>
  <features><acpi/><apic/><vmport state='off'/></features>
  <cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC</model>
    <topology sockets='2' dies='1' cores='2' threads='2'/></cpu>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/var/lib/libvirt/images/debian12.qcow2' index='2'/><target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/data'/>
      <target dev='vdb' bus='virtio'/><serial>DATA01</serial></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='rbd' name='pool/image'/><target dev='vdc' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>
    <interface type='network'><mac address='52:54:00:aa:bb:cc'/>
      <source network='default' portid='x' bridge='virbr0'/><model type='virtio'/></interface>
    <interface type='bridge'><mac address='52:54:00:aa:bb:cd'/><source bridge='br0'/><model type='e1000e'/></interface>
    <graphics type='vnc' port='-1' autoport='yes' passwd='s3cret'/>
    <hostdev mode='subsystem' type='pci' managed='yes'><source>
      <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>
  </devices>
</domain>)";

}  // namespace

TEST_CASE("a domain is a q35 machine with virtio devices and a record of ours") {
    const Parsed xml{domain_xml(sample(), kvm_pc)};
    CHECK(xml.at("/domain/@type") == "kvm");
    CHECK(xml.at("/domain/name") == "web-1");
    CHECK(xml.at("/domain/uuid") == "0198a000-0000-7000-8000-000000000001");
    CHECK(xml.at("/domain/memory") == "1536");
    CHECK(xml.at("/domain/memory/@unit") == "MiB");
    CHECK(xml.at("/domain/vcpu") == "3");
    CHECK(xml.at("/domain/os/type/@machine") == "q35");
    CHECK(xml.at("/domain/os/type/@arch") == "x86_64");
    CHECK(xml.count("/domain/os/@firmware") == 0);
    CHECK(xml.at("/domain/cpu/@mode") == "host-passthrough");
    CHECK(xml.at("/domain/cpu/topology/@cores") == "3");
    CHECK(xml.count("/domain/features/apic") == 1);
    CHECK(xml.at("/domain/clock/@offset") == "utc");
    CHECK(xml.at("/domain/clock/timer[@name='hpet']/@present") == "no");
    CHECK(xml.at("/domain/on_poweroff") == "destroy");
    CHECK(xml.at("/domain/on_reboot") == "restart");
    CHECK(xml.at("/domain/on_crash") == "destroy");
    CHECK(xml.at("/domain/pm/suspend-to-mem/@enabled") == "no");
    CHECK(xml.at("/domain/pm/suspend-to-disk/@enabled") == "no");
    const auto record = xml.root.child("metadata").first_child();
    CHECK(std::string{record.name()} == "ghost:vm");
    CHECK(std::string{record.attribute("xmlns:ghost").value()} == "https://ghost.cloud/xmlns/vm/1");
    CHECK(std::string{record.text().get()} == sample().record);
    CHECK(xml.at("//channel/target/@name") == "org.qemu.guest_agent.0");
    CHECK(xml.at("//serial/log/@file") == "/log/web-1.log");
    CHECK(xml.at("//serial/log/@append") == "on");
    CHECK(xml.at("//serial/target/@type") == "isa-serial");
    CHECK(xml.at("//rng/backend") == "/dev/urandom");
    CHECK(xml.count("//memballoon/stats[@period > 0]") == 1);
}

TEST_CASE("a domain's console is a pseudo-terminal, or a socket where a path for one is given") {
    auto spec = sample();
    const Parsed terminal{domain_xml(spec, emulated_pc)};
    CHECK(terminal.at("//serial/@type") == "pty");
    CHECK(terminal.at("//console/@type") == "pty");
    CHECK(terminal.count("//serial/source") == 0);
    spec.console_socket = "/log/web-1 <&>.sock";
    const auto& machine = GENERATE_REF(emulated_pc, arm, mock);
    const Parsed socket{domain_xml(spec, machine)};
    for (const std::string name : {"//serial", "//console"}) {
        CHECK(socket.at((name + "/@type").c_str()) == "unix");
        CHECK(socket.at((name + "/source/@mode").c_str()) == "bind");
        CHECK(socket.at((name + "/source/@path").c_str()) == spec.console_socket);
        CHECK(socket.at((name + "/target/@port").c_str()) == "0");
    }
    CHECK(socket.at("//serial/log/@file") == "/log/web-1.log");
    CHECK(socket.at("//console/target/@type") == "serial");
}

TEST_CASE("a domain has a screen behind a socket, unless it is to have none") {
    auto spec = sample();
    {
        const Parsed xml{domain_xml(spec, emulated_pc)};
        CHECK(xml.count("//graphics") == 1);
        CHECK(xml.at("//graphics/@type") == "vnc");
        CHECK(xml.at("//graphics/listen/@type") == "socket");
        CHECK(xml.count("//graphics/@port | //graphics/@passwd | //graphics/listen/@address") == 0);
        CHECK(xml.at("//video/model/@type") == "vga");
        CHECK(xml.count("//input") == 1);
        CHECK(xml.at("//input[@type='tablet']/@bus") == "virtio");
    }
    {
        const Parsed xml{domain_xml(spec, arm)};
        CHECK(xml.count("//graphics[@type='vnc']") == 1);
        CHECK(xml.at("//video/model/@type") == "virtio");
        CHECK(xml.at("//input[@type='tablet']/@bus") == "virtio");
        CHECK(xml.at("//input[@type='keyboard']/@bus") == "virtio");
    }
    CHECK(Parsed{domain_xml(spec, mock)}.count("//graphics | //video | //input") == 0);
    spec.display = false;
    CHECK(Parsed{domain_xml(spec, kvm_pc)}.count("//graphics | //video | //input") == 0);
}

TEST_CASE("every disk says its format, its serial and where its chain ends") {
    const Parsed xml{domain_xml(sample(), emulated_pc)};
    REQUIRE(xml.count("//disk[@device='disk']") == 2);
    CHECK(xml.at("//disk[1]/target/@dev") == "vda");
    CHECK(xml.at("//disk[1]/driver/@type") == "qcow2");
    CHECK(xml.at("//disk[1]/driver/@discard") == "unmap");
    CHECK(xml.count("//disk[@device='disk']/driver[@error_policy='stop'][@rerror_policy='report']") == 2);
    CHECK(xml.at("//disk[1]/source/@file") == "/pool/web-1.qcow2");
    CHECK(xml.at("//disk[1]/serial") == "root");
    CHECK(xml.at("//disk[1]/boot/@order") == "1");
    CHECK(xml.at("//disk[1]/backingStore/format/@type") == "qcow2");
    CHECK(xml.at("//disk[1]/backingStore/source/@file") == "/images/debian.qcow2");
    CHECK(xml.count("//disk[1]/backingStore/backingStore[not(*) and not(@*)]") == 1);
    CHECK(xml.at("//disk[2]/target/@dev") == "vdb");
    CHECK(xml.count("//disk[2]/backingStore[not(*) and not(@*)]") == 1);
    CHECK(xml.count("//disk[2]/boot") == 0);
    CHECK(xml.at("//disk[@device='cdrom']/target/@bus") == "scsi");
    CHECK(xml.at("//disk[@device='cdrom']/driver/@type") == "raw");
    CHECK(xml.count("//disk[@device='cdrom']/readonly") == 1);
    CHECK(xml.at("//controller[@type='scsi']/@model") == "virtio-scsi");
}

TEST_CASE("the twenty-seventh disk is vdaa") {
    auto spec = sample();
    spec.disks.assign(28, {"d", "/pool/d.qcow2", "", ""});
    const Parsed xml{domain_xml(spec, emulated_pc)};
    CHECK(xml.at("//disk[26]/target/@dev") == "vdz");
    CHECK(xml.at("//disk[27]/target/@dev") == "vdaa");
    CHECK(xml.at("//disk[28]/target/@dev") == "vdab");
}

TEST_CASE("there is a numbered root port for each device and eight to spare") {
    const Parsed xml{domain_xml(sample(), emulated_pc)};
    const auto ports = xml.count("//controller[@model='pcie-root-port']");
    CHECK(ports == 2 + 1 + 4 + 1 + virt::spare_root_ports);
    for (std::size_t i = 1; i <= ports; ++i)
        CHECK(xml.count(("//controller[@model='pcie-root-port'][@index='" + std::to_string(i) + "']").c_str()) == 1);
    CHECK(Parsed{domain_xml(sample(), arm)}.count("//controller[@model='pcie-root-port']") == ports + 2);
    auto blind = sample();
    blind.display = false;
    CHECK(Parsed{domain_xml(blind, emulated_pc)}.count("//controller[@model='pcie-root-port']") == ports - 1);
}

TEST_CASE("UEFI is left to libvirt's choice, without secure boot") {
    auto spec = sample();
    spec.firmware = virt::Firmware::uefi;
    const auto text = domain_xml(spec, emulated_pc);
    const Parsed xml{text};
    CHECK(xml.at("/domain/os/@firmware") == "efi");
    CHECK(xml.at("/domain/os/firmware/feature[@name='secure-boot']/@enabled") == "no");
    CHECK(parse_domain_xml(*text)->firmware == virt::Firmware::uefi);
}

TEST_CASE("an ARM domain is a virt machine with an interrupt controller and UEFI") {
    const Parsed xml{domain_xml(sample(), arm)};
    CHECK(xml.at("/domain/os/type/@machine") == "virt");
    CHECK(xml.at("/domain/os/@firmware") == "efi");
    CHECK(xml.count("/domain/features/gic") == 1);
    CHECK(xml.count("/domain/features/apic") == 0);
    CHECK(xml.count("/domain/clock/timer") == 0);
    CHECK(xml.at("//serial/target/@type") == "system-serial");
}

TEST_CASE("a driver of no known machine gets no controllers and no CPU model") {
    const Parsed xml{domain_xml(sample(), mock)};
    CHECK(xml.at("/domain/@type") == "test");
    CHECK(xml.count("//controller") == 0);
    CHECK(xml.count("/domain/cpu") == 0);
    CHECK(xml.count("/domain/os/type/@machine") == 0);
}

TEST_CASE("a domain without disks, seed, networks and console log is a domain still") {
    auto spec = sample();
    spec.disks.clear();
    spec.nics.clear();
    spec.seed_path.clear();
    spec.console_log.clear();
    const Parsed xml{domain_xml(spec, emulated_pc)};
    CHECK(xml.count("//disk") == 0);
    CHECK(xml.count("//interface") == 0);
    CHECK(xml.count("//serial") == 1);
    CHECK(xml.count("//serial/log") == 0);
}

TEST_CASE("hostile values are escaped: they come back as they were and add no element") {
    const std::string hostile = R"(a'"/><disk/>]]>&amp;<!-- &#10; ü 漢 𝄞)";
    auto spec = sample();
    spec.name = hostile;
    spec.disks[0] = {hostile, "/pool/" + hostile, "/images/" + hostile, "qcow2"};
    spec.seed_path = "/seed/" + hostile;
    spec.nics[0].network = hostile;
    spec.nics[0].name = hostile;
    spec.record = hostile + "\n\t end";
    const auto text = domain_xml(spec, emulated_pc);
    const Parsed xml{text};
    CHECK(xml.count("//disk") == 3);
    CHECK(xml.count("//interface/alias") == 0);
    const auto info = parse_domain_xml(*text);
    REQUIRE(info);
    CHECK(info->name == hostile);
    CHECK(info->disks.at(0).serial == hostile);
    CHECK(info->disks.at(0).path == "/pool/" + hostile);
    CHECK(info->disks.at(2).path == "/seed/" + hostile);
    CHECK(info->nics.at(0).network == hostile);
    CHECK(info->record == spec.record);
}

TEST_CASE("what XML can't carry is refused, wherever it stands") {
    const std::string bad =
        GENERATE(std::string{"a\0b", 3}, std::string{"\x01"}, std::string{"\x1b[31m"}, std::string{"\xff"},
                 std::string{"\xc0\xaf"}, std::string{"\xed\xa0\x80"}, std::string{"\xe2\x82"},
                 std::string{"\xef\xbf\xbf"}, std::string{"\xf5\x80\x80\x80"});
    std::vector<DomainSpec> specs(7, sample());
    specs[0].name = bad;
    specs[1].disks[0].path = bad;
    specs[2].disks[1].name = bad;
    specs[3].nics[0].network = bad;
    specs[4].record = bad;
    specs[5].console_log = bad;
    specs[6].console_socket = bad;
    for (const auto& spec : specs) {
        const auto xml = domain_xml(spec, emulated_pc);
        REQUIRE_FALSE(xml);
        CHECK(xml.error().code == base::Errc::validation_failed);
    }
    CHECK(virt::record_element(bad).error().code == base::Errc::validation_failed);
}

TEST_CASE("a network interface keeps its name as an alias when libvirt can take it") {
    const Parsed xml{domain_xml(sample(), emulated_pc)};
    CHECK(xml.at("//interface/alias/@name") == "ua-eth0");
}

TEST_CASE("a definition of ours is read back as it was asked for") {
    const auto info = parse_domain_xml(*domain_xml(sample(), emulated_pc));
    REQUIRE(info);
    CHECK(info->uuid == sample().uuid);
    CHECK(info->name == "web-1");
    CHECK(info->vcpus == 3);
    CHECK(info->memory_mib == 1536);
    CHECK(info->firmware == virt::Firmware::bios);
    CHECK(info->record == sample().record);
    REQUIRE(info->disks.size() == 3);
    CHECK(info->disks[1].serial == "data");
    CHECK(info->disks[1].target == "vdb");
    CHECK(info->disks[2].cdrom);
    REQUIRE(info->nics.size() == 1);
    CHECK(info->nics[0].mac == "52:54:00:01:02:03");
    CHECK(info->nics[0].model == "virtio");
}

TEST_CASE("a domain that virt-manager made is understood") {
    const auto info = parse_domain_xml(made_by_virt_manager);
    REQUIRE(info);
    CHECK(info->name == "debian12 \"alt\"");
    CHECK(info->vcpus == 2);
    CHECK(info->memory_mib == 4096);
    CHECK(info->firmware == virt::Firmware::uefi);
    CHECK_FALSE(info->record.has_value());
    REQUIRE(info->disks.size() == 4);
    CHECK(info->disks[0].path == "/var/lib/libvirt/images/debian12.qcow2");
    CHECK(info->disks[0].format == "qcow2");
    CHECK(info->disks[1].path == "/dev/vg/data");
    CHECK(info->disks[1].serial == "DATA01");
    CHECK(info->disks[2].path.empty());
    CHECK(info->disks[3].cdrom);
    CHECK(info->disks[3].path.empty());
    REQUIRE(info->nics.size() == 2);
    CHECK(info->nics[0].network == "default");
    CHECK(info->nics[1].network.empty());
    CHECK(info->nics[1].model == "e1000e");
}

TEST_CASE("each file is found that a domain's disks are, stand on or are copied to") {
    const auto sources = virt::disk_sources_of(R"(<domain type='kvm'><devices>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/d/top.qcow2' index='3'/>
        <backingStore type='file' index='2'><format type='qcow2'/><source file='/d/mid.qcow2'/>
          <backingStore type='file' index='1'><format type='raw'/><source file='/d/base.raw'/><backingStore/>
          </backingStore></backingStore>
        <mirror type='file' job='copy'><format type='qcow2'/><source file='/d/copy.qcow2'/></mirror>
        <target dev='vda' bus='virtio'/></disk>
      <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/data'/></disk>
      <disk type='volume' device='disk'><driver type='qcow2'/><source pool='p' volume='v.qcow2'/></disk>
      <disk type='network' device='disk'><source protocol='rbd' name='pool/image'><host name='h'/></source></disk>
      <disk type='file' device='cdrom'><source file='/iso/a.iso'/></disk>
      <disk type='file' device='floppy'><source file='/iso/a.img'/></disk>
      <disk type='file' device='cdrom'><target dev='sda'/></disk>
      <filesystem><source dir='/srv'/></filesystem>
    </devices></domain>)");
    REQUIRE(sources);
    const std::set<virt::DiskFile> files{{"/d/top.qcow2", "qcow2"},  {"/d/mid.qcow2", "qcow2"}, {"/d/base.raw", "raw"},
                                         {"/d/copy.qcow2", "qcow2"}, {"/dev/vg/data", "raw"},   {"/iso/a.iso", ""},
                                         {"/iso/a.img", ""}};
    CHECK(sources->files == files);
    CHECK(sources->volumes == std::set<virt::PoolVolume>{{"p", "v.qcow2", "qcow2"}});
    CHECK(virt::disk_sources_of("<network/>").error().code == base::Errc::hypervisor_error);
}

TEST_CASE("our record is known by its namespace, whatever its prefix") {
    const auto record_in = [](const std::string& metadata) {
        return parse_domain_xml("<domain><metadata>" + metadata + "</metadata></domain>")->record;
    };
    CHECK(record_in("<x:vm xmlns:x='https://ghost.cloud/xmlns/vm/1'>a&lt;b</x:vm>") == "a<b");
    CHECK(record_in("<vm xmlns='https://ghost.cloud/xmlns/vm/1'>{}</vm>") == "{}");
    CHECK(record_in("<ghost:vm xmlns:ghost='https://ghost.cloud/xmlns/vm/1'></ghost:vm>") == "");
    CHECK(record_in("<ghost:vm xmlns:ghost='urn:somebody-else'>{}</ghost:vm>") == std::nullopt);
}

TEST_CASE("sizes are read in every unit that libvirt writes") {
    const auto mib = [](const std::string& memory) {
        return parse_domain_xml("<domain>" + memory + "</domain>")->memory_mib;
    };
    CHECK(mib("<memory>1048576</memory>") == 1024);
    CHECK(mib("<memory unit='KiB'>2048</memory>") == 2);
    CHECK(mib("<memory unit='b'>1048576</memory>") == 1);
    CHECK(mib("<memory unit='G'>2</memory>") == 2048);
    CHECK(mib("<memory unit='GB'>1</memory>") == 953);
    CHECK(mib("<memory unit='furlong'>1</memory>") == 0);
    CHECK(mib("<memory unit='TiB'>99999999999999</memory>") == 0);
    CHECK(mib("<memory>-5</memory>") == 0);
}

TEST_CASE("what is no domain is refused") {
    for (const char* const text : {"", "<domain>", "<network/>", "{}", "<domain><name>&bogus</domain>"}) {
        const auto info = parse_domain_xml(text);
        REQUIRE_FALSE(info);
        CHECK(info.error().code == base::Errc::hypervisor_error);
    }
}

TEST_CASE("a resize changes the numbers and keeps all that others put there") {
    const Parsed xml{resized_domain_xml(made_by_virt_manager, 4, 6000)};
    CHECK(xml.at("/domain/memory") == "6000");
    CHECK(xml.at("/domain/memory/@unit") == "MiB");
    CHECK(xml.at("/domain/currentMemory") == "6000");
    CHECK(xml.at("/domain/vcpu") == "4");
    CHECK(xml.count("/domain/vcpu/@current") == 0);
    CHECK(xml.at("/domain/cpu/topology/@sockets") == "1");
    CHECK(xml.at("/domain/cpu/topology/@cores") == "2");
    CHECK(xml.at("/domain/cpu/topology/@threads") == "2");
    CHECK(xml.count("//vcpupin") == 1);
    CHECK(xml.at("/domain/title") == "Old & trusted");
    CHECK(xml.at("//graphics/@passwd") == "s3cret");
    CHECK(xml.count("//hostdev") == 1);
    CHECK(xml.count("//disk") == 5);
    CHECK(xml.count("/domain/metadata/*") == 1);
    CHECK(xml.at("/domain/os/loader/@type") == "pflash");
}

TEST_CASE("a topology of several sockets grows by whole sockets") {
    const Parsed xml{resized_domain_xml(
        "<domain><memory>1024</memory><vcpu>4</vcpu><cpu><topology sockets='2' cores='2' threads='1'/></cpu></domain>",
        6, 512)};
    CHECK(xml.at("//topology/@sockets") == "3");
    CHECK(xml.at("//topology/@cores") == "2");
}

TEST_CASE("a topology that the number doesn't fit becomes one socket of cores") {
    const Parsed xml{resized_domain_xml(made_by_virt_manager, 5, 6000)};
    CHECK(xml.at("/domain/vcpu") == "5");
    CHECK(xml.at("/domain/cpu/topology/@sockets") == "1");
    CHECK(xml.at("/domain/cpu/topology/@cores") == "5");
    CHECK(xml.at("/domain/cpu/topology/@threads") == "1");
    CHECK(xml.count("//vcpupin") == 1);
}

TEST_CASE("a resize of a bare definition adds what was left to the defaults") {
    const Parsed xml{resized_domain_xml("<domain><name>x</name><memory>1024</memory><os/></domain>", 2, 256)};
    CHECK(xml.at("/domain/currentMemory") == "256");
    CHECK(xml.at("/domain/vcpu") == "2");
}

TEST_CASE("a NUMA layout is not resized") {
    const auto xml = resized_domain_xml(
        "<domain><memory>1024</memory><vcpu>4</vcpu><cpu><numa><cell id='0' cpus='0-3' "
        "memory='1024'/></numa></cpu></domain>",
        2, 256);
    REQUIRE_FALSE(xml);
    CHECK(xml.error().code == base::Errc::state_conflict);
}
