// Tasks at a port: bringing up its link (LinkTask), taking the low power states off its lanes
// (ClStatesTask), finding path entries that somebody left behind (PathSweep), and
// asking whether a router is at the other end (RouterProbe).
#pragma once

#include <cstdint>
#include <vector>

#include "fabric/config_task.h"
#include "fabric/router_status.h"

namespace tbt::fabric {

// The adapters of one port, and where their capabilities are. Lane 1 is absent if its adapter is 0.
struct PortShape {
  uint8_t lane0 = 0, lane1 = 0;
  uint16_t lane0_cap = 0, lane1_cap = 0;
  uint16_t usb4_port = 0;
};

// What a lane adapter says of the link.
struct LaneReading {
  PortState state = PortState::kUnknown;
  uint32_t speed_gbps = 0;                           // of a lane
  uint32_t lanes = 0;                                // that carry frames to the peer
  uint8_t supported_speed = 0, supported_width = 0;  // as in the register
  uint8_t target_speed = 0, target_width = 0;
};

inline constexpr Duration kPortResetTime = Duration::from_ms(10);
inline constexpr Duration kTrainingPoll = Duration::from_ms(10);
inline constexpr Duration kTrainingLimit = Duration::from_s(2);

// Reads the link until it is up or out, and makes it one between two hosts: lets the port report
// what is plugged, enables a lane that was disabled, marks it as leading to another domain, and
// opens the lock that a new link comes up with. A port that another manager has set up for a router
// is reset, because nothing else ends that.
class LinkTask final : public ConfigTask {
 public:
  explicit LinkTask(const PortShape& shape) : shape_(shape) {}
  [[nodiscard]] const LaneReading& reading() const noexcept { return reading_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  enum class Step : uint8_t {
    kHotPlug,
    kReportPlugs,
    kLane,
    kEnableLane,
    kPort,
    kReset,
    kEndReset,
    kInterDomain,
    kLock,
    kUnlock,
  };

  void lane(Instant now, const ConfigResult& result);
  void port(const ConfigResult& result);
  [[nodiscard]] ConfigAccess write(uint16_t offset) const;

  PortShape shape_;
  Step step_ = Step::kHotPlug;
  LaneReading reading_;
  uint32_t word_ = 0;  // to be written
  Instant limit_ = Instant::never();
  bool enabled_ = false, reset_ = false;  // once is enough
};

// Lanes must not sleep while a path of a host interface leads over them. A lane whose state cannot
// be read is left as it is.
class ClStatesTask final : public ConfigTask {
 public:
  explicit ClStatesTask(const PortShape& shape);

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  struct Lane {
    uint8_t adapter;
    uint16_t offset;
  };
  std::vector<Lane> lanes_;
  bool write_ = false;
  uint32_t word_ = 0;
};

// Makes two lanes one link: both lanes are told to want it, and the end that drives it says when.
// Whether it has come to that is seen at the next look at the link.
class BondTask final : public ConfigTask {
 public:
  BondTask(const PortShape& shape, bool drive) : shape_(shape), drive_(drive) {}

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  PortShape shape_;
  bool drive_;
  bool lane0_ = false;  // lane 1 first, as Linux does
  bool write_ = false;
  uint32_t word_ = 0;
};

// The HopIDs of an adapter whose entries are enabled. An entry that cannot be read counts as none.
class PathSweep final : public ConfigTask {
 public:
  PathSweep(uint8_t adapter, uint16_t first, uint16_t last);
  [[nodiscard]] uint8_t adapter() const noexcept { return adapter_; }
  [[nodiscard]] const std::vector<uint16_t>& enabled() const noexcept { return enabled_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  [[nodiscard]] uint16_t count() const noexcept;

  uint8_t adapter_;
  uint16_t next_, last_;
  std::vector<uint16_t> enabled_;
};

// Whether a router answers at the other end of a link. Between two domains it is an error.
class RouterProbe final : public ConfigTask {
 public:
  explicit RouterProbe(wire::tb::Route route) : route_(route) {}
  [[nodiscard]] bool found() const noexcept { return found_; }

 protected:
  ConfigAccess access(Instant now) override;
  void take(Instant now, const ConfigResult& result) override;

 private:
  wire::tb::Route route_;
  bool found_ = false;
};

}  // namespace tbt::fabric
