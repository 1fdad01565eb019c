// Path entries of emulated routers, written through ring 0 as a connection manager does it, credits
// and flow control apart. For routers with one port.
#pragma once

#include <gtest/gtest.h>

#include "rail/nhi/control_ring.h"
#include "wire/tb/control_packet.h"

namespace tbt::rail::test {

inline constexpr uint8_t kLaneAdapter = 1, kNhiAdapter = 3;

// Where an entry leads.
constexpr uint32_t to_nhi(uint32_t ring) {
  return ring | uint32_t{kNhiAdapter} << 11 | 14u << 17 | 1u << 31;
}
constexpr uint32_t to_lane(uint32_t hop_id) {
  return hop_id | uint32_t{kLaneAdapter} << 11 | 1u << 31;
}

inline void write_entry(nhi::ControlRing& ring, uint8_t adapter, uint32_t hop, uint32_t target) {
  wire::tb::WriteRequest request;
  request.address = {static_cast<uint16_t>(2 * hop), 2, adapter, wire::tb::ConfigSpace::kPath, 0};
  for (const uint32_t word : {target, 1u}) request.data.push(word);
  wire::tb::ControlFrame frame;
  encode_control_packet(request, frame);
  ASSERT_TRUE(ring.send(static_cast<uint8_t>(frame.pdf), frame.span()));
  nhi::ControlPacketView reply;
  ASSERT_TRUE(ring.peek(reply));
  ring.consume();
}

}  // namespace tbt::rail::test
