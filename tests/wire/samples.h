// What the tests of this room share: every opcode, headers with recognisable values, exact-size
// heap copies (so that the address sanitizer sees a read of one byte too many).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "wire/control.h"
#include "wire/crc32c.h"
#include "wire/frame.h"
#include "wire/packet.h"

namespace tbt::wire::testing {

inline std::vector<uint8_t> known_opcodes() {
  std::vector<uint8_t> opcodes;
  for (int i = 0; i < 256; ++i) {
    if (opcode_info(static_cast<uint8_t>(i)).name != nullptr)
      opcodes.push_back(static_cast<uint8_t>(i));
  }
  return opcodes;
}

// A copy without slack: no byte before or after it belongs to the allocation.
class ExactBytes {
 public:
  explicit ExactBytes(std::span<const std::byte> from)
      : data_(new std::byte[from.size()]), size_(from.size()) {
    std::copy(from.begin(), from.end(), data_.get());
  }
  [[nodiscard]] std::span<const std::byte> span() const { return {data_.get(), size_}; }
  [[nodiscard]] std::span<std::byte> writable() { return {data_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> data_;
  size_t size_;
};

// Every field of `opcode` set to its own value; fields that it has not stay at their defaults.
inline PacketHeaders sample_headers(uint8_t opcode, bool with_grh) {
  PacketHeaders h;
  h.opcode = opcode;
  h.sl = 5;
  h.dlid = 0x0081;
  h.slid = 0x0041;
  h.has_grh = with_grh;
  if (with_grh) {
    h.grh.traffic_class = 0xa5;
    h.grh.flow_label = 0xbcdef;
    h.grh.hop_limit = 64;
    for (uint8_t i = 0; i < 16; ++i) {
      h.grh.sgid[i] = static_cast<uint8_t>(0x10 + i);
      h.grh.dgid[i] = static_cast<uint8_t>(0x30 + i);
    }
  }
  h.solicited = true;
  h.ack_req = true;
  h.dest_qp = 0x123456;
  h.psn = 0xfedcba;
  const uint32_t flags = opcode_info(opcode).flags;
  if (flags & (kOpReth | kOpAtomicEth)) h.va = 0x1122334455667788;
  if (flags & (kOpReth | kOpAtomicEth | kOpIeth)) h.rkey = 0xcafe0123;
  if (flags & kOpFeth) h.flush = feth(kFlushPersistent, FlushSelectivity::kRegion);
  if (flags & kOpXrceth) h.srq_number = 0x51525354 & 0xffffff;
  if (flags & kOpReth) h.dma_length = 0x00012345;
  if (flags & kOpAeth) {
    h.syndrome = aeth_syndrome(AethKind::kAck, kAethNoCredits);
    h.msn = 0x00abcd;
  }
  if (flags & kOpAtomicEth) {
    h.swap_add = 0x0102030405060708;
    h.compare = 0x1112131415161718;
  }
  if (flags & kOpAtomicAckEth) h.atomic_result = 0x2122232425262728;
  if (flags & kOpImm) h.imm_be = base::to_big(0x31323334u);
  if (flags & kOpDeth) h.qkey = 0x80010000;
  if (flags & (kOpDeth | kOpControl)) h.src_qp = 0x654321;
  if (flags & kOpControl) h.control = {1, 0x80000002, 3};
  return h;
}

inline uint32_t padded(uint32_t payload_bytes) { return (payload_bytes + 3) & ~3u; }

// The packet, headers to pad, with a counting payload.
inline std::vector<std::byte> build_packet(const PacketHeaders& h, uint32_t payload_bytes) {
  std::vector<std::byte> bytes(kMaxHeaderBytes);
  bytes.resize(encode_headers(h, payload_bytes, bytes));
  for (uint32_t i = 0; i < payload_bytes; ++i) bytes.push_back(static_cast<std::byte>(i));
  bytes.resize(bytes.size() + padded(payload_bytes) - payload_bytes);
  return bytes;
}

inline void append_check(std::vector<std::byte>& frame, uint32_t check) {
  frame.resize(frame.size() + kCheckBytes);
  base::store_be<uint32_t>(frame.data() + frame.size() - kCheckBytes, check);
}

// A frame around `body`; `length` and the check also count `payload` if it is given.
inline std::vector<std::byte> build_frame(std::span<const std::byte> body,
                                          std::span<const std::byte> payload, uint8_t flags,
                                          uint32_t tag) {
  std::vector<std::byte> frame(kFrameHeaderBytes);
  FrameHeader header;
  header.flags = flags;
  header.length = static_cast<uint16_t>(body.size() + payload.size());
  header.tag = tag;
  encode_frame_header(header, frame.data());
  frame.insert(frame.end(), body.begin(), body.end());
  uint32_t state = crc32c_update(kCrc32cInit, frame);
  if (flags & kFlagPayloadChecked) state = crc32c_update(state, payload);
  append_check(frame, ~state);
  return frame;
}

inline Hello sample_hello() {
  Hello m;
  m.features = kFeaturePayloadCheck;
  m.incarnation = 0x1111222233334444;
  m.peer_incarnation = 0x5555666677778888;
  for (uint8_t i = 0; i < 16; ++i) m.uuid[i] = i;
  m.cable = 1;
  m.host_name = "host0";
  GidBytes gid{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1};
  m.ports.push_back({.lid = 64, .cable = 0xff, .gids = {gid}});
  m.ports.push_back({.lid = 65, .cable = 0, .gids = {gid, gid}});
  return m;
}

}  // namespace tbt::wire::testing
