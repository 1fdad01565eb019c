// vfio-user's messages: what is let in, and what is malformed.
#include "rail/emulated/vfio_user_message.h"

#include "vfio_user_fixture.h"

namespace tbt::rail::emulated::test {
namespace {

using namespace vfio_user;

Result<Request> decode(uint16_t command, const Bytes& payload) {
  const Bytes bytes = header_bytes(command, payload.size());
  const auto header = decode_header(std::span(bytes).first<kHeaderBytes>());
  if (!header) return header.error();
  return decode_request(header.value(), payload);
}

template <typename T>
T decoded(uint16_t command, const Bytes& payload) {
  const auto request = decode(command, payload);
  EXPECT_TRUE(request) << request.error().text();
  return request ? std::get<T>(request.value()) : T{};
}

void expect_malformed(uint16_t command, const Bytes& payload) {
  EXPECT_EQ(decode(command, payload).error().code(), EPROTO)
      << "command " << command << " with " << payload.size() << " bytes";
}

TEST(VfioUserMessage, HeadersThatMakeNoSenseAreRefused) {
  const auto header = [](Bytes b) { return decode_header(std::span(b).first<kHeaderBytes>()); };
  const auto good = header(header_bytes(9, 16, kFlagNoReply));
  ASSERT_TRUE(good);
  EXPECT_EQ(good->id, kId);
  EXPECT_EQ(good->command, Command::kRegionRead);
  EXPECT_EQ(good->payload_bytes, 16u);
  EXPECT_TRUE(good->no_reply);
  EXPECT_TRUE(header(header_bytes(9, kPayloadBytesMax)));
  EXPECT_FALSE(header(header_bytes(9, kPayloadBytesMax + 1)));
  EXPECT_FALSE(header(header_bytes(9, static_cast<size_t>(-1))));   // 15 bytes
  EXPECT_FALSE(header(header_bytes(9, static_cast<size_t>(-16))));  // 0 bytes
  EXPECT_FALSE(header(header_bytes(9, static_cast<size_t>(-17))));  // 4 GiB
  EXPECT_FALSE(header(header_bytes(9, 16, kFlagReply)));
}

TEST(VfioUserMessage, VersionCarriesTextThatEnds) {
  const Bytes numbers = pack(uint16_t{0}, uint16_t{1});
  EXPECT_EQ(decoded<Version>(1, numbers).minor, 1);
  EXPECT_EQ(decoded<Version>(1, join(numbers, text_bytes({"{}\0", 3}))).capabilities, "{}");
  expect_malformed(1, join(numbers, text_bytes("{}")));
  expect_malformed(1, pack(uint16_t{0}));
}

TEST(VfioUserMessage, DmaMapAndUnmap) {
  const auto map =
      decoded<DmaMap>(2, pack(32u, 3u, uint64_t{0x1000}, uint64_t{0x100000}, uint64_t{0x2000}));
  EXPECT_EQ(map.file_offset, 0x1000u);
  EXPECT_EQ(map.iova, 0x100000u);
  EXPECT_EQ(map.bytes, 0x2000u);
  EXPECT_TRUE(map.readable && map.writeable);
  const auto unmap = decoded<DmaUnmap>(3, pack(24u, 2u, uint64_t{0}, ~uint64_t{0}));
  EXPECT_TRUE(unmap.all);
  EXPECT_EQ(unmap.bytes, ~uint64_t{0});
}

TEST(VfioUserMessage, SetIrqsAgreesWithItsCount) {
  constexpr uint32_t kTriggerBool = 1u << 5 | 1u << 1, kTriggerFds = 1u << 5 | 1u << 2;
  const auto fds = decoded<SetIrqs>(8, pack(20u, kTriggerFds, 2u, 3u, 4u));
  EXPECT_EQ(fds.data, SetIrqs::Data::kEventFd);
  EXPECT_EQ(fds.action, SetIrqs::Action::kTrigger);
  EXPECT_EQ(fds.index, 2u);
  EXPECT_EQ(fds.start, 3u);
  EXPECT_EQ(fds.count, 4u);
  const auto bools = pack(22u, kTriggerBool, 2u, 0u, 2u, uint8_t{0}, uint8_t{1});
  EXPECT_EQ(std::get<SetIrqs>(decode(8, bools).value()).bools.size(), 2u);
  expect_malformed(8, pack(22u, kTriggerBool, 2u, 0u, 3u, uint8_t{0}, uint8_t{1}));
  expect_malformed(8, pack(22u, kTriggerBool, 2u, 0u, ~0u, uint8_t{0}, uint8_t{1}));
  expect_malformed(8, pack(24u, kTriggerFds, 2u, 0u, 1u, 7u));  // a descriptor's number, inline
  expect_malformed(8, pack(20u, 1u << 5, 2u, 0u, 1u));          // no data flag
  expect_malformed(8, pack(20u, 1u << 5 | 3u, 2u, 0u, 1u));     // two
  expect_malformed(8, pack(20u, 1u << 5 | 1u << 4 | 1u, 2u, 0u, 1u));
  expect_malformed(8, pack(20u, kTriggerFds | 1u << 6, 2u, 0u, 1u));
}

TEST(VfioUserMessage, RegionWriteAgreesWithItsCount) {
  const auto access = [](uint32_t count) { return pack(uint64_t{8}, 7u, count); };
  const auto write = join(access(2), pack(uint16_t{0xabcd}));
  const auto request = decode(10, write);
  ASSERT_TRUE(request);
  EXPECT_EQ(std::get<RegionWrite>(request.value()).data.size(), 2u);
  expect_malformed(10, join(access(3), pack(uint16_t{0})));
  expect_malformed(10, join(access(1), pack(uint16_t{0})));
  expect_malformed(10, join(access(~0u), pack(uint16_t{0})));
  expect_malformed(10, join(access(kTransferBytesMax + 1), Bytes(kTransferBytesMax + 1)));
  EXPECT_EQ(decoded<RegionRead>(9, access(kTransferBytesMax)).count, kTransferBytesMax);
  expect_malformed(9, access(kTransferBytesMax + 1));
}

// Every command, cut and drawn out by one byte: none is let in, and none is read beyond its end.
TEST(VfioUserMessage, OtherLengthsAreRefused) {
  const std::pair<uint16_t, size_t> fixed[] = {{2, 32}, {3, 24}, {4, 16}, {5, 32},
                                               {7, 16}, {9, 16}, {13, 0}};
  for (const auto& [command, size] : fixed) {
    EXPECT_TRUE(decode(command, Bytes(size))) << command;
    for (size_t n = 0; n < size + 8; n++) {
      if (n != size) expect_malformed(command, Bytes(n));
    }
  }
  for (size_t n = 0; n < 16; n++) expect_malformed(10, Bytes(n));
  for (size_t n = 0; n < 20; n++) expect_malformed(8, Bytes(n));
}

TEST(VfioUserMessage, UnknownCommandsAreNotMalformed) {
  for (const uint16_t command : {0, 6, 11, 14, 15, 16, 0xffff}) {
    const auto request = decode(command, Bytes(5));
    ASSERT_TRUE(request) << command;
    EXPECT_TRUE(std::holds_alternative<Unknown>(request.value()));
  }
}

TEST(VfioUserMessage, RepliesNameTheirRequest) {
  const Bytes bytes = header_bytes(9, 16);
  const Header header = decode_header(std::span(bytes).first<kHeaderBytes>()).value();
  const Bytes data = pack(uint32_t{0xdeadbeef});
  EXPECT_EQ(encode_region_read(header, {.offset = 8, .region = 7, .count = 4}, data),
            join(join(header_bytes(9, 20, kFlagReply), pack(uint64_t{8}, 7u, 4u)), data));
  EXPECT_EQ(encode_error(header, EINVAL),
            pack(kId, uint16_t{9}, 16u, kFlagReply | kFlagError, uint32_t{EINVAL}));
}

}  // namespace
}  // namespace tbt::rail::emulated::test
