#include "rail/emulated/control_trace.h"

#include <cstdio>

namespace tbt::rail::emulated {

std::string trace_line(int64_t now_ns, const TracedPacket& packet) {
  char head[64];
  std::snprintf(
      head, sizeof head, "%lld.%06lld %s pdf %u", static_cast<long long>(now_ns / 1000000000),
      static_cast<long long>(now_ns / 1000 % 1000000), packet.sent ? "tx" : "rx", packet.pdf);
  std::string line = head;
  for (size_t i = 0; i < packet.bytes.size(); i++) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "%s%02x", i % 4 == 0 ? " " : "",
                  std::to_integer<unsigned>(packet.bytes[i]));
    line += byte;
  }
  return line;
}

}  // namespace tbt::rail::emulated
