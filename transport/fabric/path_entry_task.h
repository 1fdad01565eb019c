// PathEntryTask: brings one entry of an adapter's path space into the state that is wanted. An
// entry that is enabled is always cleared first: disabled, then waited for until no packet of it is
// pending, then its flow control taken off. As the kernel's drivers/thunderbolt/path.c.
//
// What is not ours in an entry is kept as it was read. On the adapter of the host interface that
// includes the credits and the ingress side, which belong to its vendor.
#pragma once

#include <cstdint>
#include <optional>

#include "fabric/config_task.h"

namespace tbt::fabric {

inline constexpr Duration kPathPendingLimit = Duration::from_ms(500);

// An entry: of packets that come in at `adapter` with `hop_id`.
struct PathIngress {
  uint8_t adapter = 0;
  uint16_t hop_id = 0;
  bool lane = false;  // the adapter is a lane's, not the host interface's
};

// Where packets go on to. Priority, weight and flow control are the same for all our paths.
struct PathTarget {
  uint8_t egress_adapter = 0;
  uint16_t next_hop_id = 0;
  uint32_t credits = 0;  // for packets that come in by a lane
};

class PathEntryTask final : public ConfigTask {
 public:
  // Without a target the entry is to be disabled.
  PathEntryTask(const PathIngress& ingress, std::optional<PathTarget> target)
      : ingress_(ingress), target_(target) {}

  // Packets were pending for all of kPathPendingLimit.
  [[nodiscard]] bool stuck() const noexcept { return stuck_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  enum class Step : uint8_t { kRead, kDisable, kPending, kClear, kEnable };

  [[nodiscard]] uint16_t offset() const noexcept;
  [[nodiscard]] ConfigAccess write() const;
  void cleared();
  void take_flow_control_off();

  PathIngress ingress_;
  std::optional<PathTarget> target_;
  Step step_ = Step::kRead;
  uint32_t words_[2] = {};
  Instant limit_ = Instant::never();
  bool stuck_ = false;
};

// Whether an entry leads where it should, and is as PathEntryTask makes them. Reads only.
class PathEntryCheck final : public ConfigTask {
 public:
  PathEntryCheck(const PathIngress& ingress, const PathTarget& target)
      : ingress_(ingress), target_(target) {}
  // The credits are not compared: what was right for them depends on when the entry was made.
  [[nodiscard]] bool as_wanted() const noexcept { return as_wanted_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  PathIngress ingress_;
  PathTarget target_;
  bool as_wanted_ = false;
};

}  // namespace tbt::fabric
