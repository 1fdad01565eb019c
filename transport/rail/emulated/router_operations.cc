// Router operations (ROUTER_CS_26) and sideband commands (PORT_CS_1): both are done by the time
// their write is answered.
#include "rail/emulated/router_model.h"

namespace tbt::rail::emulated {
namespace {

// How many buffers of a lane adapter the router wants a manager to set aside for what. DisplayPort
// must be named by a router with several ports even if it has none.
struct BufferAnswer {
  uint32_t parameter, value;
};
constexpr BufferAnswer kBuffers[] = {{kBaMinDpAux, 1}, {kBaMinDpMain, 18}, {kBaMaxHi, 14}};

constexpr uint32_t kSidebandVendorId = 0x8087;

}  // namespace

// There is no flash and so no DROM, and no DisplayPort.
void RouterModel::run_operation() noexcept {
  const uint32_t request = s_.router[kRouterCs26];
  if ((request & kOperationValid) == 0) return;
  const uint32_t opcode = request & kOperationOpcodeMask;
  if (opcode != kBufferAllocation) {
    s_.router[kRouterCs26] = opcode | kOperationNotSupported;
    return;
  }
  uint32_t at = kRouterCs9;
  for (uint32_t i = 0; i < kOperationDwords; ++i) s_.router[kRouterCs9 + i] = 0;
  for (const BufferAnswer& answer : kBuffers) {
    s_.router[at++] = answer.parameter | answer.value << 16;
  }
  s_.router[kRouterCs25] = at - kRouterCs9;
  s_.router[kRouterCs26] = opcode;
}

// The port itself is there; a retimer or a partner beyond it never answers.
void RouterModel::run_sideband(uint32_t number) noexcept {
  PortSilicon& port = s_.ports[number];
  const uint32_t request = port.lane0[kPortCs1];
  if ((request & kSidebandPending) == 0) return;
  uint32_t answer = request & ~(kSidebandPending | kSidebandNoResponse | kSidebandResultCode);
  const auto data = std::span(port.lane0).subspan<kPortCs2, kPortDataDwords>();
  const bool write = (request & kSidebandWrite) != 0;
  if ((request >> kSidebandTargetShift & kSidebandTargetMask) != kSidebandRouter) {
    answer |= kSidebandNoResponse;
  } else {
    switch (request & kSidebandRegisterMask) {
      case kSidebandVendor:
        data[0] = kSidebandVendorId;
        break;
      case kSidebandProduct:
        data[0] = s_.router[kRouterCs0] >> 16;
        break;
      case kSidebandOpcode: {
        // 0 says that it was done.
        const bool known = data[0] == kSidebandEnumerate || data[0] == kSidebandOffline;
        if (write) port.sideband_opcode = known ? 0 : kSidebandNotSupported;
        if (!write) data[0] = port.sideband_opcode;
        break;
      }
      case kSidebandMetadata:
        if (write) port.sideband_metadata = data[0];
        if (!write) data[0] = port.sideband_metadata;
        break;
      case kSidebandData:
        for (uint32_t i = 0; i < kPortDataDwords; ++i) {
          if (write) port.sideband_data[i] = data[i];
          if (!write) data[i] = port.sideband_data[i];
        }
        break;
      default:
        answer |= kSidebandResultCode;
    }
  }
  port.lane0[kPortCs1] = answer;
}

}  // namespace tbt::rail::emulated
