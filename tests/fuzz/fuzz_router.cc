// Two router models joined by cables, and any packets from either host and from either end of the
// cables, mixed with cables that are plugged and pulled and routers that are reset. Nothing that
// comes in may make a router answer what its own codec refuses, send through a port that is down or
// lead the data plane out of its tables.
//
// Input: first byte the shape, then operations. An operation is a byte: 2:0 what, 3 which host, 7:4
// a port; packets are followed by PDF, length and so many bytes, of which the checksum is made
// right (what 0, 1) or left as it is (2). 0 is from the host, 1 over the cable.
#include <algorithm>
#include <memory>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "rail/emulated/router_model.h"
#include "wire/crc32c.h"

namespace {

using namespace tbt::rail::emulated;
namespace tb = tbt::wire::tb;

class Input {
 public:
  explicit Input(std::span<const std::byte> rest) : rest_(rest) {}
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  uint8_t byte() { return rest_.empty() ? 0 : static_cast<uint8_t>(bytes(1)[0]); }
  std::span<const std::byte> bytes(size_t count) {
    count = std::min(count, rest_.size());
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }

 private:
  std::span<const std::byte> rest_;
};

class Routers {
 public:
  explicit Routers(uint8_t shape) {
    const RouterShape a{.ports = shape % kRouterPortsMax + 1u,
                        .hop_count = (shape & 8) != 0 ? 32u : 3u,
                        .usb4_v2 = (shape & 16) != 0,
                        .intel = (shape & 32) != 0,
                        .unique_id = shape};
    RouterShape b = a;
    b.usb4_v2 = (shape & 64) != 0;
    power_on(*silicon_[0], a);
    power_on(*silicon_[1], b);
    std::ranges::fill(cables_, CableLink{.plugged = false});
  }

  void step(Input& input) {
    const uint8_t op = input.byte();
    const unsigned host = op >> 3 & 1;
    const uint32_t port = (op >> 4) % ports();
    switch (op & 7) {
      case 0:
      case 2:
        return host_packet(host, input, (op & 7) == 0);
      case 1:
        return cable_packet(host, port, input);
      case 3:
        cables_[port].plugged = !cables_[port].plugged;
        return retrain(port);
      case 4:
        cables_[port].generation_max = static_cast<uint8_t>(2 + input.byte() % 3);
        return retrain(port);
      case 5: {
        RouterOutput out;
        model_[host].reset(out);
        return deliver(host, out);
      }
      case 6:
        model_[host].recover();
        return retrain(port);
      default:
        return model_[host].set_stuck_pending_reads(input.byte());
    }
  }

  void check() {
    for (RouterModel& model : model_) {
      for (uint32_t adapter = 0; adapter < 64; ++adapter) {
        for (uint32_t hop = 0; hop < kPathHopsMax; ++hop) {
          const PathEntry path = model.path(adapter, hop);
          if (!path.enabled) continue;
          TBT_ASSERT(path.egress_adapter % 2 == 1 && path.egress_adapter <= nhi_adapter(ports()));
          TBT_ASSERT(path.next_hop < kPathHopsMax);
        }
      }
    }
    for (uint32_t port = 0; port < ports(); ++port) {
      TBT_ASSERT(model_[0].port_up(port) == model_[1].port_up(port));
      TBT_ASSERT(model_[0].link(port) == model_[1].link(port));
      TBT_ASSERT(!model_[0].port_up(port) || cables_[port].plugged);
    }
  }

 private:
  [[nodiscard]] uint32_t ports() const { return model_[0].ports(); }

  static std::vector<std::byte> packet(Input& input, bool seal) {
    const auto bytes = input.bytes(input.byte() + size_t{1});
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    if (seal && copy.size() >= 4) {
      const auto covered = std::span<const std::byte>(copy).first(copy.size() - 4);
      tbt::base::store_be(copy.data() + covered.size(), tbt::wire::crc32c(covered));
    }
    return copy;
  }

  void host_packet(unsigned host, Input& input, bool seal) {
    const uint8_t pdf = input.byte();
    RouterOutput out;
    model_[host].handle_host(pdf, packet(input, seal), out);
    deliver(host, out);
  }
  void cable_packet(unsigned host, uint32_t port, Input& input) {
    const uint8_t pdf = input.byte();
    RouterOutput out;
    const auto bytes = packet(input, true);
    model_[host].handle_cable(port, pdf, bytes, out);
    TBT_ASSERT(out.count == 0 || model_[host].port_up(port));
    deliver(host, out);
  }

  void deliver(unsigned host, const RouterOutput& out) {
    for (size_t i = 0; i < out.count; ++i) {
      const RouterOutput::Packet& sent = out.packets[i];
      const auto pdf = static_cast<uint8_t>(sent.frame.pdf);
      if (sent.to != RouterOutput::kHost) {
        TBT_ASSERT(model_[host].port_up(sent.to));
        RouterOutput arrived;
        model_[1 - host].handle_cable(sent.to, pdf, sent.frame.span(), arrived);
        TBT_ASSERT(arrived.count == 1);
        deliver(1 - host, arrived);
      } else if (pdf != 6 && pdf != 7) {  // a message's contents are for the hosts
        tb::ControlPacket decoded;
        TBT_ASSERT(tb::decode_control_packet(pdf, sent.frame.span(), decoded) ==
                   tb::PacketError::kNone);
      }
    }
    for (uint32_t port = 0; port < ports(); ++port) {
      if ((out.retrain >> port & 1) != 0) retrain(port);
    }
  }

  void retrain(uint32_t port) {
    RouterOutput a, b;
    train(cables_[port], model_[0], port, a, model_[1], port, b);
    TBT_ASSERT(a.retrain == 0 && b.retrain == 0);
    deliver(0, a);
    deliver(1, b);
  }

  std::unique_ptr<RouterSilicon> silicon_[2] = {std::make_unique<RouterSilicon>(),
                                                std::make_unique<RouterSilicon>()};
  RouterModel model_[2] = {RouterModel(*silicon_[0]), RouterModel(*silicon_[1])};
  CableLink cables_[kRouterPortsMax] = {};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(std::as_bytes(std::span(data, size)));
  Routers routers(input.byte());
  while (!input.empty()) routers.step(input);
  routers.check();
  return 0;
}
