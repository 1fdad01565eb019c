// The text of frames: what a reader of a trace relies on, and that any frame at all gets a line.
#include "wire/dissect.h"

#include <gtest/gtest.h>

#include <string>

#include "base/rng.h"
#include "samples.h"
#include "wire/tb/credit_frame.h"

namespace tbt::wire {
namespace {

using testing::build_frame;
using testing::build_packet;
using testing::sample_headers;

std::string text_of(uint8_t opcode, uint32_t payload) {
  const auto frame = build_frame(build_packet(sample_headers(opcode, false), payload), {}, 0, 7);
  return describe(RawFrame{frame, kSofPacket, kEofWhole}, {});
}

TEST(Dissect, NamesTheFieldsOfAPacket) {
  EXPECT_EQ(text_of(0x05, 64),
            "rc send only imm qp 0x123456 psn 16702650 ack-req solicited imm 0x31323334 lid "
            "65->129 64 B");
  EXPECT_EQ(text_of(0x11, 0),
            "rc ack qp 0x123456 psn 16702650 ack-req solicited ack msn 43981 lid 65->129");
}

TEST(Dissect, NamesTheNaks) {
  ParsedPacket p;
  p.headers.opcode = static_cast<uint8_t>(Opcode::kRcAck);
  p.headers.syndrome = aeth_syndrome(AethKind::kNak, 2);
  EXPECT_NE(describe(p).find("nak remote access error"), std::string::npos);
  p.headers.syndrome = aeth_syndrome(AethKind::kNak, 30);
  EXPECT_NE(describe(p).find("nak unknown"), std::string::npos);
  p.headers.syndrome = aeth_syndrome(AethKind::kRnrNak, 12);
  EXPECT_NE(describe(p).find("rnr nak timer 12"), std::string::npos);
  p.headers.syndrome = aeth_syndrome(AethKind::kAck, 3);
  EXPECT_NE(describe(p).find("ack credits 3"), std::string::npos);
}

TEST(Dissect, EveryOpcodeBeginsWithItsName) {
  for (uint8_t opcode : testing::known_opcodes()) {
    EXPECT_EQ(text_of(opcode, 0).rfind(opcode_info(opcode).name, 0), 0u) << text_of(opcode, 0);
  }
}

TEST(Dissect, ControlMessagesAreNamed) {
  const auto frame = build_frame(encode_control(testing::sample_hello()), {}, 0, 0);
  const std::string text = describe(RawFrame{frame, kSofControl, kEofControl}, {});
  EXPECT_EQ(text.rfind("hello version 1 host host0 cable 1", 0), 0u) << text;
  EXPECT_NE(text.find(" lid 64 65"), std::string::npos) << text;
}

TEST(Dissect, CreditFramesAreNamed) {
  const auto text = [](const tb::CreditFrame& frame, size_t cut = 0) {
    std::vector<std::byte> bytes(tb::kCreditFrameBytes);
    encode_credit_frame(frame, bytes.data());
    bytes.resize(bytes.size() - cut);
    return describe(RawFrame{bytes, tb::kPdfCredit, tb::kPdfCredit}, {});
  };
  EXPECT_EQ(text({tb::CreditKind::kCredit, true, 0xbeef, 7, 300}),
            "credit session 0xbeef sent 7 limit 300 answer wanted");
  EXPECT_EQ(text({tb::CreditKind::kTest, false, 0xbeef, 7, 36}),
            "flow test session 0xbeef frame 7 of 36");
  EXPECT_EQ(text({tb::CreditKind::kCredit, true, 0xbeef, 7, 300}, 1), "bad credit frame (19 B)");
}

TEST(Dissect, DamageIsSaid) {
  auto frame = build_frame(build_packet(sample_headers(0x04, false), 8), {}, 0, 7);
  frame[20] ^= std::byte{1};
  EXPECT_EQ(describe(RawFrame{frame, kSofPacket, kEofWhole}, {}),
            "bad frame: bad check (sof 1 eof 1, 40 B)");
}

TEST(Dissect, AnyBytesGetALine) {
  Rng rng(11);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> body(rng.below(80));
    for (std::byte& b : body) b = static_cast<std::byte>(rng.next());
    const bool control = rng.below(2) == 0;
    const testing::ExactBytes frame(build_frame(body, {}, 0, 0));
    const RawFrame raw{frame.span(), control ? kSofControl : kSofPacket,
                       control ? kEofControl : kEofWhole};
    EXPECT_FALSE(describe(raw, {}).empty());
  }
}

}  // namespace
}  // namespace tbt::wire
