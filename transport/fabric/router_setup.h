// RouterSetup: what has to be done once before a host router's ports can be used. It reads what the
// router is, makes it ours, waits until it is ready, asks what it grants to paths of a host
// interface, and looks at every adapter. A router that cannot be driven is refused in words.
//
// The order is that of the kernel's tb_switch_alloc, tb_switch_configure and tb_switch_add.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fabric/config_task.h"
#include "fabric/router_status.h"

namespace tbt::fabric {

inline constexpr Duration kRouterReadyLimit = Duration::from_ms(500);
inline constexpr Duration kOperationLimit = Duration::from_ms(500);
inline constexpr Duration kConfigPollInterval = Duration::from_ms(1);

struct AdapterInfo {
  uint8_t number = 0;
  uint32_t type = 0;
  uint16_t max_in_hop_id = 0, max_out_hop_id = 0;
  uint32_t buffers = 0;          // of the adapter, and those that the control path has
  uint32_t control_credits = 0;  // lane adapters only
  uint16_t lane = 0;             // offset of the lane's capability, 0: none
  uint16_t usb4_port = 0;        // offset of the USB4 port's capability; only lane 0 has it
};

class RouterSetup final : public ConfigTask {
 public:
  // Without `ports`.
  [[nodiscard]] const RouterStatus& router() const noexcept { return router_; }
  [[nodiscard]] const std::vector<AdapterInfo>& adapters() const noexcept { return adapters_; }
  // What is odd, but no reason to give up.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  enum class Step : uint8_t {
    kIdentify,
    kEnumerate,
    kReady,
    kUniqueId,
    kBufferStart,
    kBufferWait,
    kBufferData,
    kAdapter,
    kCapability,
    kControlPath,
  };

  void identify(const ConfigResult& result);
  void ready(Instant now, const ConfigResult& result);
  void unique_id(const ConfigResult& result);
  void buffer_wait(Instant now, const ConfigResult& result);
  void buffer_data(const ConfigResult& result);
  void adapter(const ConfigResult& result);
  void capability(const ConfigResult& result);
  void control_path(const ConfigResult& result);
  void buffers_unknown(const char* why);
  void go(Step step) { step_ = step; }
  void next_adapter();
  void complete();

  Step step_ = Step::kIdentify;
  RouterStatus router_;
  std::vector<AdapterInfo> adapters_;
  std::vector<std::string> warnings_;
  uint32_t words_[5] = {};  // of the router space, from 0
  Instant limit_ = Instant::never();
  uint8_t adapter_ = 1;
  uint16_t capability_ = 0;
  uint32_t left_ = 0;  // capabilities, or dwords of the operation's answer, that may come
};

}  // namespace tbt::fabric
