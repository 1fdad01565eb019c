// Any bytes as a packet of ring 0: the first is the PDF. What is let in is canonical, and what it
// carries from another host is looked into as well. The checksum is made right first, or the fuzzer
// would not get past it.
#include <algorithm>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "wire/crc32c.h"
#include "wire/tb/control_packet.h"
#include "wire/tb/flow_agreement.h"
#include "wire/tb/path_agreement.h"
#include "wire/tb/property_transfer.h"
#include "wire/tb/thunderbolt_ip.h"
#include "wire/tb/xdomain.h"

namespace {

using namespace tbt::wire::tb;

// A message that is let in means the same when it is encoded and decoded again.
void look_into(const XDomainPacket& packet) {
  XDomainMessage message, again;
  if (decode_xdomain(packet, message) == XDomainError::kNone) {
    TBT_ASSERT(decode_xdomain(encode_xdomain(message, address_of(packet)), again) ==
               XDomainError::kNone);
    TBT_ASSERT(message == again);
    if (const auto* fragment = std::get_if<PropertiesResponse>(&message)) {
      PropertyAssembly assembly;
      const auto step = assembly.add(*fragment);
      TBT_ASSERT((step == PropertyAssembly::Step::kIgnored) == (fragment->offset != 0));
    }
  }
  IpMessage ip, ip_again;
  if (decode_thunderbolt_ip(packet, ip) == XDomainError::kNone) {
    TBT_ASSERT(decode_thunderbolt_ip(encode_thunderbolt_ip(ip, address_of(packet)), ip_again) ==
               XDomainError::kNone);
    TBT_ASSERT(ip == ip_again);
  }
  PathMessage path, path_again;
  if (decode_path_message(packet, path) == XDomainError::kNone) {
    TBT_ASSERT(decode_path_message(encode_path_message(path, address_of(packet)), path_again) ==
               XDomainError::kNone);
    TBT_ASSERT(path == path_again);
  }
  FlowMessage flow, flow_again;
  if (decode_flow_message(packet, flow) == XDomainError::kNone) {
    TBT_ASSERT(decode_flow_message(encode_flow_message(flow, address_of(packet)), flow_again) ==
               XDomainError::kNone);
    TBT_ASSERT(flow == flow_again);
  }
}

void try_packet(uint8_t pdf, std::span<const std::byte> bytes) {
  ControlPacket packet;
  if (decode_control_packet(pdf, bytes, packet) != PacketError::kNone) return;
  ControlFrame frame;
  encode_control_packet(packet, frame);
  TBT_ASSERT(static_cast<uint8_t>(frame.pdf) == pdf);
  TBT_ASSERT(std::ranges::equal(frame.span(), bytes));
  if (const auto* message = std::get_if<XDomainPacket>(&packet)) look_into(*message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  try_packet(data[0], bytes);
  if (bytes.size() < 4) return 0;
  std::vector<std::byte> sealed(bytes.begin(), bytes.end());
  const auto covered = std::span<const std::byte>(sealed).first(sealed.size() - 4);
  tbt::base::store_be(sealed.data() + covered.size(), tbt::wire::crc32c(covered));
  try_packet(data[0], sealed);
  return 0;
}
