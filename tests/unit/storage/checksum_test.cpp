#include "storage/checksum.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/fake_processes.hpp"
#include "fakes/memory_files.hpp"
#include "storage/signature.hpp"

#include <catch2/catch.hpp>

namespace {

using ghost::base::Errc;
using ghost::storage::Checksum;
using ghost::storage::find_checksum;
using ghost::storage::parse_checksum;
using ghost::storage::read_gpgv_status;

const std::string a(64, 'a');
const std::string b(64, 'b');
const std::string c(128, 'c');

TEST_CASE("a checksum is a kind and its digits") {
    CHECK(parse_checksum("sha256:" + a) == Checksum{"sha256", a});
    CHECK(parse_checksum("SHA512:" + std::string(128, 'C')) == Checksum{"sha512", c});
    for (const auto& bad :
         {std::string{}, a, "sha256:" + c, "sha512:" + a, "md5:" + a, "sha256:" + std::string(64, 'g'), "sha256: " + a})
        CHECK_FALSE(parse_checksum(bad));
}

TEST_CASE("a list names the file in any of the usual ways") {
    CHECK(find_checksum(a + "  x.img\n" + b + "  image.qcow2\n", "image.qcow2") == Checksum{"sha256", b});
    CHECK(find_checksum(b + " *image.qcow2\r\n", "image.qcow2") == Checksum{"sha256", b});
    CHECK(find_checksum(b + "  ./amd64/image.qcow2", "image.qcow2") == Checksum{"sha256", b});
    CHECK(find_checksum("# a comment\nSHA256 (image.qcow2) = " + b + "\n", "image.qcow2") == Checksum{"sha256", b});
    CHECK(find_checksum("SHA512 (a (1).img) = " + c, "a (1).img") == Checksum{"sha512", c});
    CHECK(find_checksum(b + "\n", "image.qcow2") == Checksum{"sha256", b});
    CHECK(find_checksum(std::string(64, 'B') + "  image.qcow2", "image.qcow2") == Checksum{"sha256", b});
}

TEST_CASE("the stronger of two checksums counts") {
    CHECK(find_checksum("SHA512 (i) = " + c + "\nSHA256 (i) = " + b, "i") == Checksum{"sha512", c});
    CHECK(find_checksum("SHA256 (i) = " + b + "\nSHA512 (i) = " + c, "i") == Checksum{"sha512", c});
}

TEST_CASE("a list that doesn't name the file, or twice, is none") {
    for (const auto& bad :
         {std::string{}, a + "  other.img\n", a + "  image.qcow2.sig\n", "my" + a + "  image.qcow2\n",
          std::string(32, 'a') + "  image.qcow2\n", "SHA256 (image.qcow2) = " + c, std::string{"SHA256 (image.qcow2"},
          a + "  image.qcow2\n" + b + "  image.qcow2\n", std::string{"\n\n"}}) {
        const auto found = find_checksum(bad, "image.qcow2");
        REQUIRE_FALSE(found);
        CHECK(found.error().code == Errc::source_unavailable);
    }
}

TEST_CASE("gpgv's verdict: a good signature names its key") {
    CHECK(read_gpgv_status("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 1A5D Someone <a@b>\n"
                           "[GNUPG:] VALIDSIG D2EB4462 2026-07-25 1785018847 0 4 0 1 10 00 D2EB4462\n") == "D2EB4462");
}

TEST_CASE("gpgv's verdict: anything else is no signature, and says why") {
    const auto why = [](std::string_view status) {
        const auto verdict = read_gpgv_status(status);
        REQUIRE_FALSE(verdict);
        CHECK(verdict.error().code == Errc::signature_invalid);
        return verdict.error().detail;
    };
    CHECK(why("") != "");
    CHECK(why("[GNUPG:] GOODSIG 1A5D x\n") != "");
    CHECK(why("[GNUPG:] BADSIG 1A5D x\n").find("doesn't belong to the text") != std::string::npos);
    CHECK(why("[GNUPG:] ERRSIG 1A5D 1 10 00 1 9\n[GNUPG:] NO_PUBKEY 1A5D6C4C\n").find("1A5D6C4C") != std::string::npos);
    CHECK(why("[GNUPG:] GOODSIG 1A5D x\n[GNUPG:] VALIDSIG D2 x\n[GNUPG:] REVKEYSIG 1A5D x\n").find("revoked") !=
          std::string::npos);
    CHECK(why("GOODSIG 1A5D x\nVALIDSIG D2EB x\n") != "");
}

TEST_CASE("a gpgv that was ended has judged nothing, and its files are gone") {
    ghost::fakes::TestLoop loop;
    ghost::fakes::MemoryFiles files;
    files.put_directory("/images");
    ghost::fakes::FakeProcesses processes{
        [](const auto& /*argv*/) { return ghost::base::Exit{137, "", "gpgv: out of memory"}; }};
    ghost::storage::Signatures signatures{"/images", files, processes};
    const auto ended = loop.await(signatures.verify({"list", "signature", "keys"}, "x"));
    REQUIRE_FALSE(ended);
    CHECK(ended.error().code == Errc::io_error);
    CHECK(ended.error().detail.find("137): gpgv: out of memory") != std::string::npos);
    CHECK(files.files().empty());
    processes.set_answer([](const auto& /*argv*/) { return ghost::base::Exit{2, "[GNUPG:] NODATA 1\n", ""}; });
    CHECK(loop.await(signatures.verify({"list", "", "keys"}, "x")).error().code == Errc::signature_invalid);
}

}  // namespace
