// The opcode table: its values are the IBA's, and its lines are consistent in themselves.
#include "wire/opcode.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "samples.h"

namespace tbt::wire {
namespace {

uint8_t ext(Opcode opcode) { return opcode_info(static_cast<uint8_t>(opcode)).ext_bytes; }

TEST(Opcode, KnowsThoseOfItsServicesAndNoOther) {
  // 25 of RC, 12 of UC, 2 of UD, 23 of XRC, 4 of ours; 0x15 and 0x18 to 0x1b are reserved in RC.
  const auto known = testing::known_opcodes();
  EXPECT_EQ(known.size(), 25u + 12u + 2u + 23u + 4u);
  for (int i = 0; i < 256; ++i) {
    const OpcodeInfo& info = opcode_info(static_cast<uint8_t>(i));
    if (info.name == nullptr) {
      EXPECT_EQ(info.flags, 0u) << i;
      EXPECT_EQ(info.ext_bytes, 0) << i;
    }
  }
  EXPECT_EQ(opcode_info(0x15).name, nullptr);
}

TEST(Opcode, ExtensionHeadersHaveTheSizesOfTheIba) {
  EXPECT_EQ(ext(Opcode::kRcSendMiddle), 0);
  EXPECT_EQ(ext(Opcode::kRcSendOnlyImm), 4);
  EXPECT_EQ(ext(Opcode::kRcWriteFirst), 16);
  EXPECT_EQ(ext(Opcode::kRcWriteOnlyImm), 20);
  EXPECT_EQ(ext(Opcode::kRcWriteLastImm), 4);
  EXPECT_EQ(ext(Opcode::kRcReadRequest), 16);
  EXPECT_EQ(ext(Opcode::kRcReadResponseFirst), 4);
  EXPECT_EQ(ext(Opcode::kRcReadResponseMiddle), 0);
  EXPECT_EQ(ext(Opcode::kRcAck), 4);
  EXPECT_EQ(ext(Opcode::kRcAtomicAck), 12);
  EXPECT_EQ(ext(Opcode::kRcCmpSwap), 28);
  EXPECT_EQ(ext(Opcode::kRcFetchAdd), 28);
  EXPECT_EQ(ext(Opcode::kRcSendOnlyInv), 4);
  EXPECT_EQ(ext(Opcode::kRcFlush), 20);
  EXPECT_EQ(ext(Opcode::kRcAtomicWrite), 16);
  EXPECT_EQ(ext(Opcode::kUdSendOnly), 8);
  EXPECT_EQ(ext(Opcode::kUdSendOnlyImm), 12);
  EXPECT_EQ(ext(Opcode::kQpReset), 16);
}

TEST(Opcode, EveryLineIsConsistent) {
  std::set<std::string> names;
  for (uint8_t opcode : testing::known_opcodes()) {
    const OpcodeInfo& info = opcode_info(opcode);
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    const uint32_t roles = info.flags & (kOpRequest | kOpResponse | kOpControl);
    EXPECT_EQ(__builtin_popcount(roles), 1) << info.name;
    EXPECT_EQ((info.flags & kOpControl) != 0, opcode_service(opcode) == 6) << info.name;
    EXPECT_EQ((info.flags & kOpDeth) != 0, opcode_service(opcode) == 3) << info.name;
    EXPECT_EQ((info.flags & kOpXrceth) != 0,
              opcode_service(opcode) == 5 && (info.flags & kOpRequest) != 0)
        << info.name;
    if (info.flags & kOpAeth) {
      EXPECT_TRUE(info.flags & (kOpResponse | kOpControl)) << info.name;
    }
    if (info.flags & kOpReth) {
      EXPECT_TRUE(info.flags & kOpStart) << info.name;
    }
    if (info.flags & kOpImm) {
      EXPECT_TRUE(info.flags & kOpEnd) << info.name;
    }
    EXPECT_LE(kLrhBytes + kGrhBytes + kBthBytes + info.ext_bytes, kMaxHeaderBytes);
  }
}

TEST(Opcode, XrcHasTheShapesOfRcAndAnXrcethInRequests) {
  for (uint8_t i = 0; i <= 0x17; ++i) {
    const OpcodeInfo& rc = opcode_info(i);
    const OpcodeInfo& other = opcode_info(static_cast<uint8_t>(kXrcBase + i));
    const bool request = (rc.flags & kOpRequest) != 0;
    EXPECT_EQ(other.flags, rc.flags | (request ? uint32_t{kOpXrceth} : 0)) << int{i};
    EXPECT_EQ(other.ext_bytes, rc.ext_bytes + (request ? 4 : 0)) << int{i};
  }
}

TEST(Opcode, UcHasTheSameShapesAsRc) {
  for (uint8_t i = 0; i <= 0x0b; ++i) {
    EXPECT_EQ(opcode_info(i).flags, opcode_info(static_cast<uint8_t>(0x20 + i)).flags) << int{i};
  }
}

}  // namespace
}  // namespace tbt::wire
