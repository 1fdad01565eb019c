// Any bytes as the stream of a virtual machine: headers and payloads one after the other, to a
// device whose controller counts only. Each reply has the length that it says and answers its
// request; memory is never found, since no descriptors come along.
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "rail/emulated/vfio_user_device.h"

namespace {

using namespace tbt;
using namespace tbt::rail::emulated;

class Registers final : public rail::nhi::PciDevice {
 public:
  uint32_t read32(uint32_t offset) noexcept override {
    TBT_ASSERT(offset % 4 == 0 && offset < kBarBytes);
    return ~offset;
  }
  void write32(uint32_t offset, uint32_t) noexcept override {
    TBT_ASSERT(offset % 4 == 0 && offset < kBarBytes);
  }
  Result<uint64_t> dma_map(uint64_t, uint64_t) override { return Status(ENOTSUP); }
  Status dma_unmap(uint64_t, uint64_t) override { return Status(ENOTSUP); }
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return -1; }
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }
};

void check_reply(const vfio_user::Header& request, const vfio_user::Message& reply) {
  if (request.no_reply) return TBT_ASSERT(reply.empty());
  TBT_ASSERT(reply.size() >= vfio_user::kHeaderBytes);
  TBT_ASSERT(base::load<uint16_t>(reply.data()) == request.id);
  TBT_ASSERT(base::load<uint32_t>(reply.data() + 4) == reply.size());
  const auto flags = base::load<uint32_t>(reply.data() + 8);
  TBT_ASSERT((flags & vfio_user::kFlagTypeMask) == vfio_user::kFlagReply);
  const bool error = (flags & vfio_user::kFlagError) != 0;
  TBT_ASSERT(!error || reply.size() == vfio_user::kHeaderBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vfio_user;
  Registers registers;
  VfioUserDevice device({0x8086, 0x5781});
  device.set_controller(&registers);
  auto left = std::as_bytes(std::span(data, size));
  while (left.size() >= kHeaderBytes) {
    const auto decoded = decode_header(left.first<kHeaderBytes>());
    if (!decoded) break;
    const Header& header = decoded.value();
    if (left.size() - kHeaderBytes < header.payload_bytes) break;
    Message reply;
    const Status s =
        device.handle(header, left.subspan(kHeaderBytes, header.payload_bytes), {}, reply);
    TBT_ASSERT(s || s.code() == EPROTO);
    if (!s) break;
    check_reply(header, reply);
    left = left.subspan(kHeaderBytes + header.payload_bytes);
    TBT_ASSERT(device.find(0, 1, Reach::kRead) == nullptr);
  }
  device.disconnect();
  return 0;
}
