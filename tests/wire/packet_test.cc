// Packets: known bytes of known packets, and the way there and back for every opcode.
#include "wire/packet.h"

#include <gtest/gtest.h>

#include <string>

#include "samples.h"

namespace tbt::wire {
namespace {

using testing::build_packet;
using testing::ExactBytes;
using testing::sample_headers;

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  std::string digits;
  for (char c : hex) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() == 2) {
      bytes.push_back(static_cast<std::byte>(std::stoi(digits, nullptr, 16)));
      digits.clear();
    }
  }
  return bytes;
}

void expect_equal(const PacketHeaders& a, const PacketHeaders& b) {
  EXPECT_EQ(a.sl, b.sl);
  EXPECT_EQ(a.dlid, b.dlid);
  EXPECT_EQ(a.slid, b.slid);
  ASSERT_EQ(a.has_grh, b.has_grh);
  EXPECT_EQ(a.grh.traffic_class, b.grh.traffic_class);
  EXPECT_EQ(a.grh.flow_label, b.grh.flow_label);
  EXPECT_EQ(a.grh.hop_limit, b.grh.hop_limit);
  EXPECT_EQ(a.grh.sgid, b.grh.sgid);
  EXPECT_EQ(a.grh.dgid, b.grh.dgid);
  EXPECT_EQ(a.opcode, b.opcode);
  EXPECT_EQ(a.solicited, b.solicited);
  EXPECT_EQ(a.migreq, b.migreq);
  EXPECT_EQ(a.pkey, b.pkey);
  EXPECT_EQ(a.dest_qp, b.dest_qp);
  EXPECT_EQ(a.ack_req, b.ack_req);
  EXPECT_EQ(a.psn, b.psn);
  EXPECT_EQ(a.va, b.va);
  EXPECT_EQ(a.rkey, b.rkey);
  EXPECT_EQ(a.dma_length, b.dma_length);
  EXPECT_EQ(a.flush, b.flush);
  EXPECT_EQ(a.srq_number, b.srq_number);
  EXPECT_EQ(a.syndrome, b.syndrome);
  EXPECT_EQ(a.msn, b.msn);
  EXPECT_EQ(a.swap_add, b.swap_add);
  EXPECT_EQ(a.compare, b.compare);
  EXPECT_EQ(a.atomic_result, b.atomic_result);
  EXPECT_EQ(a.imm_be, b.imm_be);
  EXPECT_EQ(a.qkey, b.qkey);
  EXPECT_EQ(a.src_qp, b.src_qp);
  EXPECT_EQ(a.control, b.control);
}

TEST(Packet, WriteOnlyImmHasTheBytesOfTheIba) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kRcWriteOnlyImm), false);
  const auto bytes = build_packet(h, 5);
  // 8 LRH + 12 BTH + 16 RETH + 4 ImmDt + 5 + 3 pad = 48 bytes; with the ICRC 13 words.
  EXPECT_EQ(bytes, from_hex("00 52 0081 000d 0041"
                            "0b f0 ffff 00 123456 80 fedcba"
                            "1122334455667788 cafe0123 00012345"
                            "31323334"
                            "0001020304 000000"));
}

TEST(Packet, GlobalDatagramHasTheBytesOfTheIba) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kUdSendOnly), true);
  h.solicited = h.ack_req = false;
  const auto bytes = build_packet(h, 4);
  // GRH payload length: 12 BTH + 8 DETH + 4 + 4 ICRC = 28.
  EXPECT_EQ(bytes, from_hex("00 53 0081 0013 0041"
                            "6a5bcdef 001c 1b 40"
                            "101112131415161718191a1b1c1d1e1f"
                            "303132333435363738393a3b3c3d3e3f"
                            "64 40 ffff 00 123456 00 fedcba"
                            "80010000 00654321"
                            "00010203"));
}

TEST(Packet, AtomicsHaveTheBytesOfTheIba) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kRcCmpSwap), false);
  h.migreq = false;
  EXPECT_EQ(build_packet(h, 0),
            from_hex("00 52 0081 000d 0041"
                     "13 80 ffff 00 123456 80 fedcba"
                     "1122334455667788 cafe0123 0102030405060708 1112131415161718"));
  h = sample_headers(static_cast<uint8_t>(Opcode::kRcAtomicAck), false);
  h.solicited = h.ack_req = false;
  EXPECT_EQ(build_packet(h, 0), from_hex("00 52 0081 0009 0041"
                                         "12 40 ffff 00 123456 00 fedcba"
                                         "1f 00abcd 2122232425262728"));
}

TEST(Packet, FlushAndAtomicWriteHaveTheBytesOfTheIba) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kRcFlush), false);
  h.solicited = false;
  EXPECT_EQ(build_packet(h, 0), from_hex("00 52 0081 000b 0041"
                                         "1c 40 ffff 00 123456 80 fedcba"
                                         "00000012 1122334455667788 cafe0123 00012345"));
  h = sample_headers(static_cast<uint8_t>(Opcode::kRcAtomicWrite), false);
  h.solicited = false;
  EXPECT_EQ(build_packet(h, 8), from_hex("00 52 0081 000c 0041"
                                         "1d 40 ffff 00 123456 80 fedcba"
                                         "1122334455667788 cafe0123 00012345"
                                         "0001020304050607"));
}

TEST(Packet, XrcNamesTheSrqBeforeAllElse) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(xrc(Opcode::kRcWriteOnlyImm)), false);
  h.solicited = false;
  EXPECT_EQ(build_packet(h, 4), from_hex("00 52 0081 000d 0041"
                                         "ab 40 ffff 00 123456 80 fedcba"
                                         "00525354 1122334455667788 cafe0123 00012345"
                                         "31323334 00010203"));
}

TEST(Packet, ControlBodyIsSourceQpAndThreeWords) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kUcCredit), false);
  h.solicited = h.ack_req = false;
  EXPECT_EQ(build_packet(h, 0), from_hex("00 52 0081 000a 0041"
                                         "c1 40 ffff 00 123456 00 fedcba"
                                         "00654321 00000001 80000002 00000003"));
}

TEST(Packet, EveryOpcodeComesBackAsItWent) {
  for (uint8_t opcode : testing::known_opcodes()) {
    for (bool grh : {false, true}) {
      const bool payload_allowed = opcode_has(opcode, kOpPayload);
      for (uint32_t payload : {0u, 1u, 2u, 3u, 4u, 64u, 1023u, 4096u}) {
        if (payload != 0 && !payload_allowed) continue;
        SCOPED_TRACE(std::string(opcode_info(opcode).name) + " " + std::to_string(payload));
        const PacketHeaders h = sample_headers(opcode, grh);
        const ExactBytes bytes(build_packet(h, payload));
        ParsedPacket parsed;
        ASSERT_EQ(parse_packet(bytes.span(), bytes.span().size(), parsed), ParseError::kNone);
        expect_equal(h, parsed.headers);
        EXPECT_EQ(parsed.payload_bytes, payload);
        EXPECT_EQ(parsed.headers.pad, testing::padded(payload) - payload);
        EXPECT_EQ(parsed.header_bytes,
                  kLrhBytes + (grh ? kGrhBytes : 0) + kBthBytes + opcode_info(opcode).ext_bytes);
        EXPECT_EQ(bytes.span().size(), parsed.header_bytes + testing::padded(payload));
      }
    }
  }
}

TEST(Packet, AHeadFrameIsParsedFromItsHeadersAlone) {
  const PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kRcWriteFirst), false);
  const auto whole = build_packet(h, 4096);
  const ExactBytes head{std::span(whole).first(whole.size() - 4096)};
  ParsedPacket parsed;
  ASSERT_EQ(parse_packet(head.span(), whole.size(), parsed), ParseError::kNone);
  EXPECT_EQ(parsed.header_bytes, head.span().size());
  EXPECT_EQ(parsed.payload_bytes, 4096u);
}

TEST(Packet, FieldsWiderThanTheirBitsAreCut) {
  PacketHeaders h = sample_headers(static_cast<uint8_t>(Opcode::kRcAck), true);
  h.dest_qp = 0xff000001;
  h.psn = 0xff000002;
  h.msn = 0xff000003;
  h.grh.flow_label = 0xfff00004;
  ParsedPacket parsed;
  const auto bytes = build_packet(h, 0);
  ASSERT_EQ(parse_packet(bytes, bytes.size(), parsed), ParseError::kNone);
  EXPECT_EQ(parsed.headers.dest_qp, 1u);
  EXPECT_EQ(parsed.headers.psn, 2u);
  EXPECT_EQ(parsed.headers.msn, 3u);
  EXPECT_EQ(parsed.headers.grh.flow_label, 4u);
  EXPECT_TRUE(parsed.headers.ack_req);
  EXPECT_EQ(parsed.headers.syndrome, 0x1f);
}

TEST(Packet, SyndromesSplitIntoKindAndValue) {
  for (int s = 0; s < 128; ++s) {
    const auto syndrome = static_cast<uint8_t>(s);
    EXPECT_EQ(aeth_syndrome(aeth_kind(syndrome), aeth_value(syndrome)), syndrome);
  }
  EXPECT_EQ(aeth_syndrome(AethKind::kNak, 1), 0x61);
  EXPECT_EQ(aeth_syndrome(AethKind::kRnrNak, 12), 0x2c);
}

}  // namespace
}  // namespace tbt::wire
