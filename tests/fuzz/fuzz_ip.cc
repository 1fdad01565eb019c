// Any bytes from a peer on thunderbolt-net. The lowest bit of the first one chooses: frames, each
// after its length, that are put together and cut up again; or a packet for the responder, as it is
// and with its checksums made right, or the fuzzer would not get past them.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "ip/frame.h"
#include "ip/packet_layout.h"
#include "ip/responder.h"

namespace {

using namespace tbt;
using namespace tbt::ip;
using Bytes = std::vector<std::byte>;

// A packet that was let in is the same when it has been cut up and put together again.
void try_frames(std::span<const std::byte> bytes) {
  PacketAssembly assembly;
  while (bytes.size() >= 2) {
    const size_t length = std::min<size_t>(base::load_le<uint16_t>(bytes.data()), bytes.size() - 2);
    const Bytes frame(bytes.begin() + 2, bytes.begin() + 2 + static_cast<ptrdiff_t>(length));
    bytes = bytes.subspan(2 + length);
    if (!assembly.add(frame)) continue;
    TBT_ASSERT(!assembly.packet().empty() && assembly.packet().size() <= kPacketBytesMax);
    PacketFrames frames(assembly.packet(), 7);
    PacketAssembly again;
    bool whole = false;
    for (auto next = frames.next(); !next.empty(); next = frames.next()) {
      TBT_ASSERT(!whole);
      whole = again.add(next);
    }
    TBT_ASSERT(whole && std::ranges::equal(again.packet(), assembly.packet()));
  }
}

Identity own() {
  Identity me;
  me.mac = {2, 1, 1, 1, 1, 1};
  me.ipv4 = {169, 254, 84, 1};
  me.ipv6 = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0xff, 0xfe, 1, 1, 1};
  return me;
}

// A responder in the place of whoever sent the packet has nothing to say to the answer.
void check_answer(const Bytes& packet, std::span<const std::byte> answer) {
  TBT_ASSERT(answer.size() <= packet.size() + kNdOptionBytes);
  TBT_ASSERT(std::memcmp(answer.data() + kEthSource, own().mac.data(), kMacBytes) == 0);
  Identity sender;
  std::memcpy(sender.mac.data(), packet.data() + kEthSource, kMacBytes);
  if (answer.size() >= kIpEnd) std::memcpy(sender.ipv4.data(), answer.data() + kIpTarget, 4);
  if (answer.size() >= kIp6End) std::memcpy(sender.ipv6.data(), answer.data() + kIp6Target, 16);
  Responder responder(sender);
  TBT_ASSERT(responder.handle(answer).empty());
}

void mend(Bytes& packet) {
  const auto seal = [&packet](size_t at, uint32_t sum, size_t from, size_t end) {
    base::store_be(packet.data() + at, uint16_t{0});
    const auto covered = std::span<const std::byte>(packet).subspan(from, end - from);
    base::store_be(packet.data() + at,
                   static_cast<uint16_t>(~checksum_fold(checksum_add(sum, covered))));
  };
  if (packet.size() < kIpEnd + kIcmpBytes) return;
  const size_t end = kIp + base::load_be<uint16_t>(packet.data() + kIpLength);
  if (base::load_be<uint16_t>(packet.data() + kEthType) == kTypeIpv4) {
    seal(kIpChecksum, 0, kIp, kIpEnd);
    if (end >= kIpEnd + kIcmpBytes && end <= packet.size()) seal(kIcmpChecksum, 0, kIpEnd, end);
  } else if (packet.size() >= kIp6End + kIcmp6Bytes) {
    const size_t length = base::load_be<uint16_t>(packet.data() + kIp6Length);
    if (length < kIcmp6Bytes || length > packet.size() - kIp6End) return;
    const auto addresses = std::span<const std::byte>(packet).subspan(kIp6Source, 2 * kIp6Bytes);
    seal(kIcmp6Checksum, checksum_add(static_cast<uint32_t>(length) + kNextIcmpv6, addresses),
         kIp6End, kIp6End + length);
  }
}

// Packets one after the other, each after its length, so that fragments can follow each other.
void try_packets(std::span<const std::byte> bytes) {
  Responder responder(own());
  while (bytes.size() >= 2) {
    const size_t length = std::min<size_t>(base::load_le<uint16_t>(bytes.data()), bytes.size() - 2);
    Bytes packet(bytes.begin() + 2, bytes.begin() + 2 + static_cast<ptrdiff_t>(length));
    bytes = bytes.subspan(2 + length);
    for (const bool mended : {false, true}) {
      if (mended) mend(packet);
      const auto answer = responder.handle(packet);
      if (!answer.empty()) check_answer(packet, answer);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  (data[0] & 1) != 0 ? try_frames(bytes) : try_packets(bytes);
  return 0;
}
