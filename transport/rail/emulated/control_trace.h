// What passes through ring 0 of a host's controller, for whoever wants to watch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace tbt::rail::emulated {

struct TracedPacket {
  bool sent = false;  // by the driver; else received
  uint8_t pdf = 0;
  std::span<const std::byte> bytes;  // with the checksum
};

// Called for each packet that this process takes from the host's ring 0 or puts into it, under the
// fabric's control lock.
using ControlTap = std::function<void(uint32_t host, const TracedPacket& packet)>;

// "SECONDS tx|rx pdf N 01234567 89abcdef ...": dwords as they are on the wire, the checksum last.
std::string trace_line(int64_t now_ns, const TracedPacket& packet);

}  // namespace tbt::rail::emulated
